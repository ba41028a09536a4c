"""Signatures of documents by any key that relying parties name: EC (NIST curves), RSA from 2048 bits, Ed25519.

Three families of encoding: COSE and JOSE give ECDSA as r | s (RFC 9053 section 2.1, RFC 7518 section 3.4), DSSE and
X.509 as DER. The algorithm is always tied to the key: a name that does not fit the key is false, never tried.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from casemate.errors import Malformed

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

_MAX_BYTES = 4096
_MIN_RSA, _MAX_RSA = 2048, 8192
_CURVES: dict[str, tuple[str, hashes.HashAlgorithm]] = {
    "secp256r1": ("ES256", hashes.SHA256()),
    "secp384r1": ("ES384", hashes.SHA384()),
    "secp521r1": ("ES512", hashes.SHA512()),
}
_PSS: dict[str, hashes.HashAlgorithm] = {"PS256": hashes.SHA256(), "PS384": hashes.SHA384(), "PS512": hashes.SHA512()}
# COSE algorithm numbers (RFC 9053, RFC 8230) by their JOSE names.
COSE = {-7: "ES256", -35: "ES384", -36: "ES512", -37: "PS256", -38: "PS384", -39: "PS512", -8: "EdDSA"}


def load(der: bytes, name: str = "public key") -> PublicKey:
    """The key of a DER SubjectPublicKeyInfo in its one form; one that is not accepted here is `Malformed`."""
    if len(der) > _MAX_BYTES:
        raise Malformed(f"{name}: {len(der)} bytes, at most {_MAX_BYTES} allowed")
    try:
        key = load_der_public_key(der)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Malformed(f"{name}: not a DER SubjectPublicKeyInfo of a known kind") from error
    if not usable(key):
        raise Malformed(f"{name}: neither EC P-256, P-384, P-521, RSA of {_MIN_RSA} bits or more, nor Ed25519")
    return key  # type: ignore[return-value]  # usable() has looked at its type


def usable(key: object) -> bool:
    """Whether a key is of a kind and size that is believed."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        return key.curve.name in _CURVES
    if isinstance(key, rsa.RSAPublicKey):
        return _MIN_RSA <= key.key_size <= _MAX_RSA
    return isinstance(key, ed25519.Ed25519PublicKey)


def spki(key: PublicKey) -> bytes:
    """DER SubjectPublicKeyInfo."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def verify_jose(key: object, algorithm: str, signature: bytes, message: bytes) -> bool:
    """Whether `key` signed `message` under the named JOSE or COSE algorithm; false for all else."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        name, digest = _CURVES.get(key.curve.name, ("", hashes.SHA256()))
        half = (key.key_size + 7) // 8
        if algorithm != name or len(signature) != 2 * half:
            return False
        r, s = int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big")
        return _ecdsa(key, encode_dss_signature(r, s), message, digest)
    if isinstance(key, rsa.RSAPublicKey) and algorithm in _PSS and usable(key):
        return _pss(key, signature, message, _PSS[algorithm])
    return algorithm == "EdDSA" and _ed25519(key, signature, message)


def verify_dsse(key: object, signature: bytes, message: bytes) -> bool:
    """Whether `key` signed `message` as DSSE's signers do: ECDSA in DER, RSA-PSS or PKCS #1 with SHA-256, Ed25519."""
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return _ecdsa(key, signature, message, _CURVES[key.curve.name][1])
    if isinstance(key, rsa.RSAPublicKey) and usable(key):
        return _pss(key, signature, message, hashes.SHA256()) or _pkcs1(key, signature, message)
    return _ed25519(key, signature, message)


def algorithm(key: PrivateKey) -> str:
    """The JOSE name of what `sign_jose` does with this key."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return _CURVES[key.curve.name][0]
    return "PS384" if isinstance(key, rsa.RSAPrivateKey) else "EdDSA"


def sign_jose(key: PrivateKey, message: bytes) -> bytes:
    """A signature in the encoding of `verify_jose`, under the algorithm that `algorithm` names."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        half = (key.key_size + 7) // 8
        r, s = decode_dss_signature(key.sign(message, ec.ECDSA(_CURVES[key.curve.name][1])))
        return r.to_bytes(half, "big") + s.to_bytes(half, "big")
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(message, padding.PSS(padding.MGF1(hashes.SHA384()), 48), hashes.SHA384())
    return key.sign(message)


def sign_dsse(key: PrivateKey, message: bytes) -> bytes:
    """A signature in the encoding of `verify_dsse`."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(message, ec.ECDSA(_CURVES[key.curve.name][1]))
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(message, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
    return key.sign(message)


def _ecdsa(key: ec.EllipticCurvePublicKey, der: bytes, message: bytes, digest: hashes.HashAlgorithm) -> bool:
    try:
        key.verify(der, message, ec.ECDSA(digest))
    except InvalidSignature:
        return False
    return True


def _pss(key: rsa.RSAPublicKey, signature: bytes, message: bytes, digest: hashes.HashAlgorithm) -> bool:
    try:
        key.verify(signature, message, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)
    except InvalidSignature:
        return False
    return True


def _pkcs1(key: rsa.RSAPublicKey, signature: bytes, message: bytes) -> bool:
    try:
        key.verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        return False
    return True


def _ed25519(key: object, signature: bytes, message: bytes) -> bool:
    if not isinstance(key, ed25519.Ed25519PublicKey):
        return False
    try:
        key.verify(signature, message)
    except InvalidSignature:
        return False
    return True
