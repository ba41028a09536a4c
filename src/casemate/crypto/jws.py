"""Signed tokens of others: compact JWS (RFC 7515) and JWK sets (RFC 7517), read strictly.

Rules
1. Everything is bounded before it is parsed; members that occur twice, `crit` and `b64` are `Malformed`.
2. The algorithm is the key's, never the token's: a token that names another one is not this key's. `none`, symmetric
   algorithms and keys that a token brings along (`jwk`, `x5c`, `jku`, `x5u`) have no place here.
3. A set may hold keys that are of no use here; they are passed over. At most `MAX_KEYS` are kept.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from casemate.crypto import signatures
from casemate.errors import Malformed
from casemate.wire import jcs
from casemate.wire.encoding import b64u, unb64u

MAX_TOKEN = 16 << 10
MAX_SET = 256 << 10
MAX_KEYS = 64
ALGORITHMS = ("EdDSA", "ES256", "RS256")
_NAMES = {"Ed25519": "EdDSA"}  # RFC 9864's name
_TYPES = (None, "JWT", "jwt", "at+jwt", "application/at+jwt")
_REFUSED = ("crit", "b64")
_MAX_RSA = 8192


@dataclass(frozen=True)
class Token:
    """A token that was taken apart; nothing in it is believed before `signed_by`."""

    algorithm: str
    kid: str | None
    claims: dict[str, Any]
    message: bytes
    signature: bytes

    def signed_by(self, key: Key) -> bool:
        """Whether `key` signed it, under the one algorithm of that key."""
        if self.algorithm != key.algorithm:
            return False
        if not isinstance(key.public, rsa.RSAPublicKey):
            return signatures.verify_jose(key.public, key.algorithm, self.signature, self.message)
        try:
            key.public.verify(self.signature, self.message, padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True)
class Key:
    """A public key, its one algorithm, and its name in the set it came from."""

    public: signatures.PublicKey
    algorithm: str
    kid: str | None = None


def parse(token: str) -> Token:
    """A compact JWS that carries a JSON object; `Malformed` for all else."""
    if len(token) > MAX_TOKEN:
        raise Malformed(f"token: more than {MAX_TOKEN} characters")
    parts = token.split(".")
    if len(parts) != 3 or not all(parts):
        raise Malformed("token: not a compact JWS")
    header = jcs.parse_object(unb64u(parts[0], "token header"), "token header", limit=MAX_TOKEN)
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or _NAMES.get(algorithm, algorithm) not in ALGORITHMS:
        raise Malformed(f"token: an algorithm among {', '.join(ALGORITHMS)} is wanted")
    if not (kid is None or isinstance(kid, str)) or not _typed(header) or any(name in header for name in _REFUSED):
        raise Malformed("token: its header asks for what is not known here")
    claims = jcs.parse_object(unb64u(parts[1], "token claims"), "token claims", limit=MAX_TOKEN)
    return Token(
        algorithm=_NAMES.get(algorithm, algorithm),
        kid=kid,
        claims=claims,
        message=f"{parts[0]}.{parts[1]}".encode(),
        signature=unb64u(parts[2], "token signature"),
    )


def _typed(header: dict[str, Any]) -> bool:
    kind = header.get("typ")
    return kind is None or (isinstance(kind, str) and kind in _TYPES)


def keys(document: bytes) -> tuple[Key, ...]:
    """The usable keys of a JWK set; `Malformed` when it is none, names a key twice, or has too many."""
    entries = jcs.parse_object(document, "JWK set", limit=MAX_SET).get("keys")
    if not isinstance(entries, list):
        raise Malformed("JWK set: `keys` is missing")
    if len(entries) > MAX_KEYS:
        raise Malformed(f"JWK set: {len(entries)} keys, at most {MAX_KEYS} are allowed")
    found = [key for key in (_usable(entry) for entry in entries if isinstance(entry, dict)) if key is not None]
    names = [key.kid for key in found if key.kid is not None]
    if len(names) != len(set(names)):
        raise Malformed("JWK set: two keys have one kid")
    return tuple(found)


def of(public: object, kid: str | None = None) -> Key:
    """A key with the algorithm that it is used with; `Malformed` for a kind that is not known here."""
    if isinstance(public, ed25519.Ed25519PublicKey):
        return Key(public, "EdDSA", kid)
    if isinstance(public, ec.EllipticCurvePublicKey) and public.curve.name == "secp256r1":
        return Key(public, "ES256", kid)
    if isinstance(public, rsa.RSAPublicKey) and signatures.usable(public):
        return Key(public, "RS256", kid)
    raise Malformed("key: Ed25519, EC P-256, or RSA of 2048 to 8192 bits is wanted")


def thumbprint(public: signatures.PublicKey) -> str:
    """RFC 7638 (RFC 8037 for Ed25519), base64url."""
    if isinstance(public, ed25519.Ed25519PublicKey):
        members = {"kty": "OKP", "crv": "Ed25519", "x": b64u(public.public_bytes_raw())}
    elif isinstance(public, rsa.RSAPublicKey):
        numbers = public.public_numbers()
        members = {"kty": "RSA", "n": b64u(_unsigned(numbers.n)), "e": b64u(_unsigned(numbers.e))}
    else:
        point, half = public.public_numbers(), (public.key_size + 7) // 8
        curve = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}[public.curve.name]
        members = {"kty": "EC", "crv": curve, "x": b64u(point.x.to_bytes(half, "big"))}
        members["y"] = b64u(point.y.to_bytes(half, "big"))
    return b64u(hashlib.sha256(jcs.canonical(members)).digest())


def _usable(entry: dict[str, Any]) -> Key | None:
    """The key of one entry, None when it is for another purpose or of a kind that is not known here."""
    operations = entry.get("key_ops")
    if entry.get("use", "sig") != "sig" or (isinstance(operations, list) and "verify" not in operations):
        return None
    kid, named = entry.get("kid"), entry.get("alg")
    try:
        made = of(_public(entry), kid if isinstance(kid, str) else None)
    except (Malformed, ValueError, TypeError, UnsupportedAlgorithm):
        return None
    if named is not None and (not isinstance(named, str) or _NAMES.get(named, named) != made.algorithm):
        return None
    return made


def _public(entry: dict[str, Any]) -> object:
    kind, curve = entry.get("kty"), entry.get("crv")
    if (kind, curve) == ("OKP", "Ed25519"):
        return ed25519.Ed25519PublicKey.from_public_bytes(unb64u(entry["x"] if _text(entry, "x") else "", size=32))
    if (kind, curve) == ("EC", "P-256") and _text(entry, "x") and _text(entry, "y"):
        x, y = (int.from_bytes(unb64u(entry[part], size=32), "big") for part in ("x", "y"))
        return ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    if kind == "RSA" and _text(entry, "n") and _text(entry, "e") and len(entry["n"]) <= _MAX_RSA // 6 + 8:
        n, e = (int.from_bytes(unb64u(entry[part]), "big") for part in ("n", "e"))
        if e >= 1 << 32:  # a long exponent makes every verification slow
            raise Malformed("key: an RSA exponent below 2^32 is wanted")
        return rsa.RSAPublicNumbers(e, n).public_key()
    return None


def _text(entry: dict[str, Any], name: str) -> bool:
    return isinstance(entry.get(name), str)


def _unsigned(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")
