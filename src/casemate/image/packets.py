"""Annotation packets of the ``attestation-agent`` key provider: a layer's key, wrapped under a broker's resource.

Spec: CoCo guest-components, ocicrypt key-provider annotation packets v1 (no version) and v2 (``"version":"0.1.0"``).
``wrapped_data`` is AES-256-GCM without additional data, tag at the end; A256CTR is read too, because old images carry
it and the layer's HMAC, keyed with what was wrapped, catches every change.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from casemate.errors import Malformed, Refused
from casemate.wire import jcs
from casemate.wire.encoding import b64, unb64

MAX_PACKET = 64 << 10
VERSION_2 = "0.1.0"
_IV_SIZES = {"A256GCM": 12, "A256CTR": 16}
_KID = re.compile(r"kbs:///[A-Za-z0-9_-][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_-][A-Za-z0-9_.-]*){2}")


class Packet(msgspec.Struct, frozen=True):
    """A parsed packet; `kid` is the ``kbs:///`` URI of the key that wraps."""

    kid: str
    wrapped: bytes
    iv: bytes
    wrap_type: str


def is_kid(text: str) -> bool:
    """Whether `text` is a ``kbs:///repository/type/tag`` URI."""
    return len(text) <= 512 and _KID.fullmatch(text) is not None


def parse(data: bytes) -> Packet:
    """The packet in `data`; the only error is `Malformed`."""
    document = jcs.parse_object(data, "key packet", limit=MAX_PACKET)
    version, provider = document.get("version"), document.get("provider", "kbs")
    if version not in (None, VERSION_2):
        raise Malformed(f"key packet: version {str(version)[:32]!r} is not known")
    if provider != "kbs":
        raise Malformed(f"key packet: provider {str(provider)[:32]!r} is not a key broker")
    kid, wrap_type = document.get("kid"), document.get("wrap_type")
    if not isinstance(kid, str) or not is_kid(kid):
        raise Malformed("key packet: kid is not kbs:///repository/type/tag")
    if not isinstance(wrap_type, str) or wrap_type not in _IV_SIZES:
        raise Malformed(f"key packet: wrap_type {str(wrap_type)[:32]!r} is not known")
    wrapped, iv = document.get("wrapped_data"), document.get("iv")
    if not isinstance(wrapped, str) or not isinstance(iv, str):
        raise Malformed("key packet: wrapped_data and iv are wanted")
    return Packet(
        kid,
        unb64(wrapped, "key packet: wrapped_data"),
        unb64(iv, "key packet: iv", size=_IV_SIZES[wrap_type]),
        wrap_type,
    )


def wrap(secret: bytes, kid: str, key: bytes, *, version: int = 2) -> bytes:
    """A packet that carries `secret` under the 32-byte `key` named `kid`; `version` is 1 or 2."""
    if not is_kid(kid):
        raise Malformed(f"key id {kid[:128]!r}: kbs:///repository/type/tag is wanted")
    iv = os.urandom(12)
    document: dict[str, object] = {
        "kid": kid,
        "wrapped_data": b64(AESGCM(_sized(key, kid)).encrypt(iv, secret, None)),
        "iv": b64(iv),
        "wrap_type": "A256GCM",
    }
    if version == 2:
        document = {"version": VERSION_2, "provider": "kbs", **document, "provider_settings": {}, "annotations": {}}
    return json.dumps(document, separators=(",", ":")).encode()


def unwrap(packet: Packet, key: bytes) -> bytes:
    """What `packet` carries. A key that does not fit is `Refused` (rule ``image.key``)."""
    key = _sized(key, packet.kid)
    if packet.wrap_type == "A256CTR":
        return Cipher(algorithms.AES(key), modes.CTR(packet.iv)).decryptor().update(packet.wrapped)
    try:
        return AESGCM(key).decrypt(packet.iv, packet.wrapped, None)
    except (InvalidTag, ValueError):
        raise Refused.because(
            "image.key",
            expected=f"the key at {packet.kid} opens the layer",
            found="it does not",
            hint="the image was encrypted with another key, or the resource holds a newer one",
        ) from None


def open_any(candidates: tuple[bytes, ...], keys: Callable[[str], bytes]) -> bytes:
    """Unwrap with the first packet whose key `keys` gives; every failed attempt is a finding of the refusal."""
    problems: list[Refused] = []
    for data in candidates:
        packet = parse(data)
        try:
            return unwrap(packet, keys(packet.kid))
        except Refused as refusal:
            problems.append(refusal)
    if not problems:
        raise Refused.because(
            "image.key",
            expected="a layer key wrapped for a key broker",
            found="none",
            hint="encrypt the image with the attestation-agent key provider",
        )
    raise Refused(finding for problem in problems for finding in problem.findings)


def _sized(key: bytes, kid: str) -> bytes:
    if len(key) != 32:
        raise Refused.because(
            "image.key",
            expected=f"32 bytes at {kid}",
            found=f"{len(key)} bytes",
            hint="store the raw 32-byte key, not its text form",
        )
    return key
