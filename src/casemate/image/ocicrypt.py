"""Encrypted layers: AES-256-CTR with HMAC-SHA256 over the ciphertext, and the two documents that describe them.

Spec: containers/ocicrypt ``AES_256_CTR_HMAC_SHA256``. *pubopts* (public, an annotation) carry the cipher's name and
the HMAC; *private options* (wrapped by a key provider) carry the layer's key, its nonce and the plain layer's digest.
The key serves for cipher and HMAC alike: that is the format, and CTR gives no integrity of its own, so nobody may use
plaintext before the HMAC over the whole ciphertext has matched.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Iterable, Iterator

import msgspec
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

from casemate.crypto import pins
from casemate.errors import Malformed
from casemate.image.manifest import ENCRYPTED, Descriptor
from casemate.wire import jcs
from casemate.wire.encoding import b64, unb64

CIPHER = "AES_256_CTR_HMAC_SHA256"
PUBOPTS = "org.opencontainers.image.enc.pubopts"
KEYS = "org.opencontainers.image.enc.keys."
PROVIDER = KEYS + "provider."
CASEMATE_PROVIDER = PROVIDER + "attestation-agent"
MAX_OPTIONS = 64 << 10
MAX_PACKETS = 16


class LayerSecret(msgspec.Struct, frozen=True):
    """A layer's private options: 32-byte key, 16-byte initial counter block, digest of the plain (compressed) layer."""

    key: bytes
    nonce: bytes
    digest: str

    def __repr__(self) -> str:
        return f"LayerSecret(digest={self.digest!r})"  # the key stays out of logs and tracebacks

    @classmethod
    def fresh(cls, digest: str) -> LayerSecret:
        """New random key and nonce for the plain layer with `digest`; never used for another layer."""
        return cls(os.urandom(32), os.urandom(16), digest)

    @classmethod
    def parse(cls, data: bytes) -> LayerSecret:
        """Read private options as ocicrypt writes them."""
        document = jcs.parse_object(data, "layer key", limit=MAX_OPTIONS)
        options = document.get("cipheroptions")
        nonce = options.get("nonce") if isinstance(options, dict) else None
        key, digest = document.get("symkey"), document.get("digest")
        if not (isinstance(key, str) and isinstance(nonce, str) and isinstance(digest, str) and pins.is_digest(digest)):
            raise Malformed("layer key: symkey, cipheroptions.nonce and digest are wanted")
        return cls(unb64(key, "layer key: symkey", size=32), unb64(nonce, "layer key: nonce", size=16), digest)

    def encode(self) -> bytes:
        """Private options in ocicrypt's own form."""
        document = {"symkey": b64(self.key), "digest": self.digest, "cipheroptions": {"nonce": b64(self.nonce)}}
        return json.dumps(document, separators=(",", ":")).encode()

    def cipher(self) -> CipherContext:
        """A fresh key stream; encryption and decryption are the same."""
        return Cipher(algorithms.AES(self.key), modes.CTR(self.nonce)).encryptor()

    def mac(self) -> hmac.HMAC:
        """A fresh HMAC, to be fed with ciphertext."""
        return hmac.new(self.key, digestmod=hashlib.sha256)


def public_mac(descriptor: Descriptor) -> bytes:
    """The HMAC that a layer's public options promise; another cipher is `Malformed`."""
    text = descriptor.annotation(PUBOPTS)
    if text is None:
        raise Malformed("encrypted layer: it has no public options")
    document = jcs.parse_object(unb64(text, "public options"), "public options", limit=MAX_OPTIONS)
    if document.get("cipher") != CIPHER:
        raise Malformed(f"encrypted layer: cipher {str(document.get('cipher'))[:64]!r} is not {CIPHER}")
    mac = document.get("hmac")
    if not isinstance(mac, str):
        raise Malformed("public options: hmac is missing")
    return unb64(mac, "public options: hmac", size=32)


def packets(descriptor: Descriptor) -> tuple[bytes, ...]:
    """The wrapped keys that key providers left on a layer, whatever their name (CoCo ignores it too)."""
    found: list[bytes] = []
    for name, value in sorted((descriptor.annotations or {}).items()):
        if name.startswith(PROVIDER):
            found.extend(unb64(part, "wrapped layer key") for part in value.split(","))
    if len(found) > MAX_PACKETS:
        raise Malformed(f"encrypted layer: {len(found)} wrapped keys, at most {MAX_PACKETS} allowed")
    return tuple(found)


def layer_annotations(mac: bytes, wrapped: Iterable[bytes]) -> dict[str, str]:
    """What an encrypted layer's descriptor carries."""
    public = {"cipher": CIPHER, "hmac": b64(mac), "cipheroptions": {}}
    return {
        PUBOPTS: b64(json.dumps(public, separators=(",", ":")).encode()),
        CASEMATE_PROVIDER: ",".join(b64(packet) for packet in wrapped),
    }


class Encryption:
    """One layer on its way to ciphertext: read `chunks`, then `descriptor` tells digest, size and HMAC."""

    def __init__(self, plain: Descriptor) -> None:
        if plain.media_type.endswith(ENCRYPTED):
            raise Malformed("layer: it is encrypted already")
        self._plain = plain
        self.secret = LayerSecret.fresh(plain.digest)
        self._mac, self._digest, self._size = self.secret.mac(), hashlib.sha256(), 0

    def chunks(self, plaintext: Iterable[bytes]) -> Iterator[bytes]:
        """The ciphertext of `plaintext`."""
        cipher = self.secret.cipher()
        for chunk in plaintext:
            sealed = cipher.update(chunk)
            self._mac.update(sealed)
            self._digest.update(sealed)
            self._size += len(sealed)
            yield sealed

    def descriptor(self, wrapped: Iterable[bytes]) -> Descriptor:
        """The encrypted layer's descriptor, with the layer's key in each of the `wrapped` packets."""
        return Descriptor(
            self._plain.media_type + ENCRYPTED,
            "sha256:" + self._digest.hexdigest(),
            self._size,
            {**(self._plain.annotations or {}), **layer_annotations(self._mac.digest(), wrapped)},
        )
