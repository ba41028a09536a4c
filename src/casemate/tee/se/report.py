"""IBM SE attestation on the wire: CoCo's request and response, and the bytes that are measured.

Standards: s390-tools, pvattest (attestation items); CoCo's `SeAttestationRequest` and its response, all base64.

    primary evidence  {"measurement" 64, "additional_data", "user_data" 0 to 256, "cuid" 16, "image_hdr_tags" 208,
                       "encr_measurement_key", "encr_request_nonce": what the asker sent, given back}
    measured          PLD | ALD | TLD | tag | cuid | user size u16 | 0 u16 | additional size u32 | user | nonce |
                      additional, big-endian; HMAC-SHA-512 with the request's measurement key
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from casemate.errors import Malformed
from casemate.wire.encoding import b64, unb64

MAX_USER, MAX_ADDITIONAL, MAX_BLOB, MAX_ECHO = 256, 0x8000, 0x10000, 1024
_MAX_JSON = 1 << 20
_TAGS = 208


@dataclass(frozen=True)
class Tags:
    """What identifies a boot image: hashes of its pages, addresses and tweaks, and its header's tag."""

    pld: bytes
    ald: bytes
    tld: bytes
    tag: bytes

    @classmethod
    def parse(cls, data: bytes) -> Tags:
        """From their 208 bytes."""
        if len(data) != _TAGS:
            raise Malformed(f"SE image tags: {len(data)} bytes, {_TAGS} wanted")
        return cls(data[:64], data[64:128], data[128:192], data[192:])

    def pack(self) -> bytes:
        """The 208 bytes."""
        return self.pld + self.ald + self.tld + self.tag


@dataclass(frozen=True)
class Response:
    """The Ultravisor's answer. `echo` is what the asker sent along for itself, as it came back."""

    measurement: bytes
    additional: bytes
    user: bytes
    cuid: bytes
    tags: Tags
    echo: tuple[bytes, bytes]


@dataclass(frozen=True)
class Challenge:
    """The asker's request in CoCo's form. `blob` is the request control block."""

    blob: bytes
    measurement_size: int
    additional_size: int
    echo: tuple[bytes, bytes]
    tags: Tags
    digest: bytes | None = None

    def pack(self) -> bytes:
        """The JSON that is sent as the challenge."""
        shown: dict[str, Any] = {
            "request_blob": b64(self.blob),
            "measurement_size": self.measurement_size,
            "additional_size": self.additional_size,
            "encr_measurement_key": b64(self.echo[0]),
            "encr_request_nonce": b64(self.echo[1]),
            "image_hdr_tags": b64(self.tags.pack()),
        }
        if self.digest is not None:
            shown["runtime_data_digest"] = b64(self.digest)
        return msgspec.json.encode(shown)


def parse_evidence(primary: dict[str, Any]) -> Response:
    """Decode the primary evidence object."""
    return Response(
        measurement=_bytes(primary, "measurement", 64, 64),
        additional=_bytes(primary, "additional_data", 0, MAX_ADDITIONAL),
        user=_bytes(primary, "user_data", 0, MAX_USER),
        cuid=_bytes(primary, "cuid", 16, 16),
        tags=Tags.parse(_bytes(primary, "image_hdr_tags", _TAGS, _TAGS)),
        echo=_echo(primary),
    )


def parse_challenge(data: bytes) -> Challenge:
    """Decode the JSON of a request."""
    if len(data) > _MAX_JSON:
        raise Malformed(f"SE request: {len(data)} bytes, at most {_MAX_JSON} allowed")
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed("SE request: not JSON") from error
    if not isinstance(found, dict):
        raise Malformed("SE request: no JSON object")
    given = found.get("runtime_data_digest")
    return Challenge(
        blob=_bytes(found, "request_blob", 1, MAX_BLOB),
        measurement_size=_size(found, "measurement_size"),
        additional_size=_size(found, "additional_size"),
        echo=_echo(found),
        tags=Tags.parse(_bytes(found, "image_hdr_tags", _TAGS, _TAGS)),
        digest=None if given is None else _bytes(found, "runtime_data_digest", 0, 64),
    )


def measured(tags: Tags, cuid: bytes, user: bytes, nonce: bytes, additional: bytes) -> bytes:
    """The bytes under the measurement; `nonce` is empty for a request without one."""
    sizes = len(user).to_bytes(2, "big") + bytes(2) + len(additional).to_bytes(4, "big")
    return tags.pack() + cuid + sizes + user + nonce + additional


def _echo(found: dict[str, Any]) -> tuple[bytes, bytes]:
    return (_bytes(found, "encr_measurement_key", 0, MAX_ECHO), _bytes(found, "encr_request_nonce", 0, MAX_ECHO))


def _size(found: dict[str, Any], name: str) -> int:
    value = found.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_ADDITIONAL:
        raise Malformed(f"SE request: {name} is no size")
    return value


def _bytes(found: dict[str, Any], name: str, least: int, most: int) -> bytes:
    value = found.get(name)
    if not isinstance(value, str) or len(value) > 2 * most + 4:
        raise Malformed(f"SE: `{name}` is no base64 of {least} to {most} bytes")
    data = unb64(value, f"SE: {name}")
    if not least <= len(data) <= most:
        raise Malformed(f"SE: `{name}` has {len(data)} bytes, {least} to {most} wanted")
    return data
