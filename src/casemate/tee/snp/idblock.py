"""ID block and authentication: how an owner signs what may be launched, and what a report then shows of the keys.

Standard: SEV-SNP Firmware ABI (56860), SNP_LAUNCH_FINISH (ID block, ID authentication information) and its formats of
public keys and signatures. All integers are little-endian, also those of keys and signatures.

    block           launch digest 48 | family id 16 | image id 16 | version u32 | guest SVN u32 | policy u64
    authentication  ID key algorithm u32 | author key algorithm u32 | 56 | signature of the block 512 | ID key 1028 | 60
                    | signature of the ID key 512 | author key 1028 | 892
    public key      curve u32 (2: P-384) | X 72 | Y 72 | 880
    signature       R 72 | S 72 | 368

The report's ID_KEY_DIGEST and AUTHOR_KEY_DIGEST are SHA-384 over the public key in the firmware's own form.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from casemate.errors import Malformed, Unusable
from casemate.tee.rules import Rules
from casemate.wire.cursor import Cursor

if TYPE_CHECKING:
    from casemate.tee.snp.report import Report

SIZE, AUTHENTICATION_SIZE = 96, 4096
ECDSA_P384_SHA384 = 1
_CURVE_P384, _NUMBER, _KEY, _SIGNATURE = 2, 72, 0x404, 0x200
_VERSION = 1
Sign = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Block:
    """A parsed ID block; `signed` are its bytes."""

    launch_digest: bytes
    family_id: bytes
    image_id: bytes
    guest_svn: int
    policy: int
    signed: bytes


@dataclass(frozen=True)
class Authentication:
    """Parsed authentication. Keys are X | Y, signatures r | s (96 bytes each, big-endian); no author: both empty."""

    signature: bytes
    key: bytes
    key_signature: bytes
    author_key: bytes


def block(
    launch_digest: bytes,
    *,
    policy: int = 0x30000,
    guest_svn: int = 0,
    family_id: bytes = bytes(16),
    image_id: bytes = bytes(16),
) -> bytes:
    """The 96 bytes that an ID key signs (ECDSA P-384, SHA-384): what may be launched, under which policy."""
    for name, value, size in (
        ("launch digest", launch_digest, 48),
        ("family id", family_id, 16),
        ("image id", image_id, 16),
    ):
        if len(value) != size:
            raise Unusable(f"ID block: a {name} of {len(value)} bytes, {size} wanted")
    if not (0 <= guest_svn < 1 << 32 and 0 <= policy < 1 << 64):
        raise Unusable("ID block: guest SVN or policy is out of range")
    numbers = _VERSION.to_bytes(4, "little") + guest_svn.to_bytes(4, "little") + policy.to_bytes(8, "little")
    return launch_digest + family_id + image_id + numbers


def authentication(block: bytes, key: bytes, sign: Sign, author: bytes = b"", author_sign: Sign | None = None) -> bytes:
    """The 4096 bytes for a `block`. Keys are X | Y (96 bytes, big-endian); `sign` gives r | s (ECDSA, SHA-384).

    Where the keys live is the caller's matter: this module never sees a private one.
    """
    id_key = _public(key)
    made = ECDSA_P384_SHA384.to_bytes(4, "little")
    made += (ECDSA_P384_SHA384 if author else 0).to_bytes(4, "little") + bytes(56)
    made += _numbers(sign(block), _SIGNATURE) + id_key + bytes(60)
    if author and author_sign is not None:
        made += _numbers(author_sign(id_key), _SIGNATURE) + _public(author)
    return made.ljust(AUTHENTICATION_SIZE, b"\0")


def key_digest(point: bytes) -> bytes:
    """The digest that reports show of a P-384 key, given as X | Y (96 bytes, big-endian)."""
    return hashlib.sha384(_public(point)).digest()


def parse(data: bytes) -> Block:
    """Read an ID block; the only error is `Malformed`."""
    read = Cursor(data, "ID block")
    digest, family, image = read.take(48), read.take(16), read.take(16)
    version, svn, policy = read.u32(), read.u32(), read.u64()
    read.end()
    if version != _VERSION:
        raise Malformed(f"ID block: version {version}, {_VERSION} is known")
    return Block(digest, family, image, svn, policy, data)


def parse_authentication(data: bytes) -> Authentication:
    """Read the authentication; reserved bytes must be zero. The only error is `Malformed`."""
    read = Cursor(data, "ID authentication")
    kinds = read.u32(), read.u32()
    if kinds not in {(ECDSA_P384_SHA384, 0), (ECDSA_P384_SHA384, ECDSA_P384_SHA384)}:
        raise Malformed(f"ID authentication: key algorithms {kinds}, ECDSA P-384 is known")
    _zeros(read, 56)
    signature, key = _pair(read, _SIGNATURE), _key(read)
    _zeros(read, 60)
    if not kinds[1]:
        _zeros(read, _SIGNATURE + _KEY + 892)
        read.end()
        return Authentication(signature, key, b"", b"")
    key_signature, author = _pair(read, _SIGNATURE), _key(read)
    _zeros(read, 892)
    read.end()
    return Authentication(signature, key, key_signature, author)


def check(report: Report, raw_block: bytes, raw_authentication: bytes, rules: Rules) -> None:
    """Judge whether the report is of a launch that these two authorised. The rules, under the TEE's name.

    idblock.signature, .author  the ID key signed the block; the author key, if there is one, the ID key
    idblock.key, .author_key    the report shows the digests of these keys (zeros without an author)
    idblock.author_enabled      the report says whether there was an author key
    idblock.digest, .policy, .svn, .ids  the block says what the report shows
    """
    from casemate.crypto import ecdsa

    found, proof = parse(raw_block), parse_authentication(raw_authentication)
    ok = ecdsa.verify_p384(ecdsa.p384_key(proof.key), proof.signature, found.signed)
    rules.check("idblock.signature", ok, "the block signed by its ID key", "signed" if ok else "not signed")
    author = bytes(48)
    if proof.author_key:
        ok = ecdsa.verify_p384(ecdsa.p384_key(proof.author_key), proof.key_signature, _public(proof.key))
        rules.check("idblock.author", ok, "the ID key signed by its author", "signed" if ok else "not signed")
        author = key_digest(proof.author_key)
    hint = "the guest was launched with another ID block"
    rules.equal("idblock.key", key_digest(proof.key), report.id_key_digest, hint)
    rules.equal("idblock.author_key", author, report.author_key_digest, hint)
    enabled = bool(report.key_info & 1)
    rules.check("idblock.author_enabled", enabled == bool(proof.author_key), bool(proof.author_key), enabled, hint)
    rules.equal("idblock.digest", found.launch_digest, report.measurement, hint)
    rules.check("idblock.policy", found.policy == report.policy, f"{found.policy:#x}", f"{report.policy:#x}", hint)
    rules.check("idblock.svn", found.guest_svn == report.guest_svn, f"{found.guest_svn}", f"{report.guest_svn}", hint)
    rules.equal("idblock.ids", found.family_id + found.image_id, report.family_id + report.image_id, hint)


def _public(point: bytes) -> bytes:
    if len(point) != 96:
        raise Unusable(f"ID key: a point of {len(point)} bytes, 96 wanted (P-384)")
    return _CURVE_P384.to_bytes(4, "little") + _numbers(point, _KEY - 4)


def _numbers(pair: bytes, size: int) -> bytes:
    """Two big-endian numbers of 48 bytes in the firmware's form."""
    if len(pair) != 96:
        raise Unusable(f"ID block: a signature of {len(pair)} bytes, 96 wanted (P-384)")
    return b"".join(part[::-1].ljust(_NUMBER, b"\0") for part in (pair[:48], pair[48:])).ljust(size, b"\0")


def _key(read: Cursor) -> bytes:
    curve = read.u32()
    if curve != _CURVE_P384:
        raise Malformed(f"ID authentication: a key on curve {curve}, P-384 ({_CURVE_P384}) is known")
    return _pair(read, _KEY - 4)


def _pair(read: Cursor, size: int) -> bytes:
    parts = read.take(_NUMBER), read.take(_NUMBER)
    if any(parts[0][48:]) or any(parts[1][48:]):
        raise Malformed("ID authentication: a number of more than 384 bits")
    _zeros(read, size - 2 * _NUMBER)
    return b"".join(part[:48][::-1] for part in parts)


def _zeros(read: Cursor, size: int) -> None:
    if any(read.take(size)):
        raise Malformed("ID authentication: reserved bytes are not zero")
