"""The attestation request control block: keys for the Ultravisor, wrapped for each host that may answer.

Standard: s390-tools, attestation request (version 1). Big-endian.

    header      magic 8 (zero) | version u32 0x100 | size u32 | iv 12 | 0 4 | 0 7 | slots u8 | 0 4 | encrypted size u32
    open part   flags u64 | measurement algorithm u32 (1: HMAC-SHA-512) | 0 u32 | asker's key x 80, y 80 (P-521)
    slot        SHA-256 of the host's key (x 80, y 80) | protection key, AES-256-GCM under ECDH | tag 16
    encrypted   measurement key 64 | nonce 16, AES-256-GCM by the protection key; all before it is authenticated
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from casemate.errors import Malformed
from casemate.wire.cursor import Cursor

VERSION, HMAC_SHA512 = 0x100, 1
MAX_SIZE = 0x10000
# Flags count from the highest bit. Each of the last four asks for additional data of this size, in this order.
NONCE = 1 << 62
ADDITIONAL = {"image_phkh": (1 << 61, 32), "attestation_phkh": (1 << 60, 32),
              "secret_store_hash": (1 << 59, 64), "firmware_state": (1 << 58, 320)}  # fmt: skip
DEFAULT = NONCE | ADDITIONAL["image_phkh"][0] | ADDITIONAL["attestation_phkh"][0]
_HEADER, _OPEN, _SLOT, _TAG = 48, 176, 80, 16
_KEY, _NONCE = 64, 16
_COORDINATE = 80


@dataclass(frozen=True)
class Slot:
    """The protection key for one host: the digest of the host's key, and the wrapped key with its tag."""

    host: bytes
    wrapped: bytes


@dataclass(frozen=True)
class Arcb:
    """A request. `authenticated` is everything before the encrypted part."""

    iv: bytes
    flags: int
    asker: bytes
    slots: tuple[Slot, ...]
    authenticated: bytes
    encrypted: bytes

    def open(self, key: bytes) -> tuple[bytes, bytes] | None:
        """(measurement key, nonce) by the protection key; None when it is not this request's. No nonce: empty."""
        if len(key) != 32:
            return None
        try:
            inner = AESGCM(key).decrypt(self.iv, self.encrypted, self.authenticated)
        except InvalidTag:
            return None
        return inner[:_KEY], inner[_KEY:]

    def additional(self, data: bytes) -> dict[str, bytes] | None:
        """The additional data by name; None when it has not the size that the flags ask for."""
        wanted = {name: size for name, (flag, size) in ADDITIONAL.items() if self.flags & flag}
        if len(data) != sum(wanted.values()):
            return None
        read = Cursor(data, "SE additional data")
        return {name: read.take(size) for name, size in wanted.items()}


def parse(data: bytes) -> Arcb:
    """Parse a request; only version 1 with HMAC-SHA-512 is known."""
    name = "SE request"
    if len(data) > MAX_SIZE:
        raise Malformed(f"{name}: {len(data)} bytes, at most {MAX_SIZE} allowed")
    read = Cursor(data, name)
    magic, version, size, iv = read.take(8), read.be32(), read.be32(), read.take(12)
    reserved, slots, more, encrypted = read.take(11), read.u8(), read.take(4), read.be32()
    if any(magic + reserved + more) or version != VERSION or size != len(data):
        raise Malformed(f"{name}: no attestation request of version {VERSION:#x} and this size")
    flags, algorithm, rest = read.be64(), read.be32(), read.be32()
    expected = _KEY + (_NONCE if flags & NONCE else 0)
    if algorithm != HMAC_SHA512 or rest or encrypted != expected or not slots:
        raise Malformed(f"{name}: HMAC-SHA-512, {expected} encrypted bytes and one host at least are wanted")
    asker = read.take(2 * _COORDINATE)
    found = tuple(Slot(read.take(32), read.take(48)) for _ in range(slots))
    start = read.offset
    sealed = read.take(encrypted + _TAG)
    read.end()
    return Arcb(iv, flags, asker, found, data[:start], sealed)


def build(
    hosts: Sequence[ec.EllipticCurvePublicKey],
    asker: ec.EllipticCurvePrivateKey,
    *,
    key: bytes,
    iv: bytes,
    secret: bytes,
    flags: int = DEFAULT,
) -> bytes:
    """A request for `hosts`. `key` protects it (32 bytes), `secret` is measurement key and nonce (80 bytes)."""
    slots = b"".join(key_digest(host) + AESGCM(wrapping(asker, host)).encrypt(bytes(12), key, None) for host in hosts)
    size = _HEADER + _OPEN + len(slots) + len(secret) + _TAG
    words = [(0, 8), (VERSION, 4), (size, 4), (int.from_bytes(iv, "big"), 12), (0, 11), (len(hosts), 1), (0, 4),
             (len(secret), 4), (flags, 8), (HMAC_SHA512, 4), (0, 4)]  # fmt: skip
    opened = b"".join(value.to_bytes(width, "big") for value, width in words)
    opened += coordinates(asker.public_key()) + slots
    return opened + AESGCM(key).encrypt(iv, secret, opened)


def wrapping(mine: ec.EllipticCurvePrivateKey, theirs: ec.EllipticCurvePublicKey) -> bytes:
    """The key between asker and host: SHA-256 of the ECDH secret and a counter of 1."""
    return hashlib.sha256(mine.exchange(ec.ECDH(), theirs) + b"\0\0\0\1").digest()


def coordinates(key: ec.EllipticCurvePublicKey) -> bytes:
    """The point's x and y, each in 80 bytes."""
    numbers = key.public_numbers()
    return numbers.x.to_bytes(_COORDINATE, "big") + numbers.y.to_bytes(_COORDINATE, "big")


def key_digest(key: ec.EllipticCurvePublicKey) -> bytes:
    """The digest by which a slot names its host (PHKH)."""
    return hashlib.sha256(coordinates(key)).digest()
