"""Keys of guests in every form of the protocol, and JWE to each of them (CoCo KBS 0.4.0, tee-pubkey and jwe module).

    EC   P-256, P-521   ECDH-ES+A256KW       `jwe`, which guests carry too
    RSA  2048 to 4096   RSA-OAEP-256         RFC 7518 section 4.3
    AKP  ML-KEM-768     ML-KEM-768+A192KW    draft-ietf-jose-pqc-kem-05 as CoCo has it; not final
    RSA1_5 is refused: PKCS #1 v1.5 decryption gives way to Bleichenbacher's attack.

The members that are hashed are those of the form and no others, as they were sent.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

from casemate.crypto import jwe, jwk
from casemate.crypto.kmac import kmac256
from casemate.errors import Malformed, Refused, Unusable
from casemate.wire.encoding import b64u, unb64u

RSA_ALGORITHM, KEM_ALGORITHM, WEAK = "RSA-OAEP-256", "ML-KEM-768+A192KW", "RSA1_5"
_FORMS = {
    "EC": ("kty", "crv", "alg", "x", "y"),
    "RSA": ("kty", "alg", "n", "e"),
    "AKP": ("kty", "alg", "pub"),
}
_KEM_SIZE = 1184
_ENC = "A256GCM"


def members(given: dict[str, Any]) -> dict[str, Any]:
    """The key in the members that the protocol hashes; `Malformed` or `Refused` (RSA1_5) unless it can be sealed to."""
    kind = given.get("kty")
    form = _FORMS.get(kind, ()) if isinstance(kind, str) else ()
    kept = {name: given[name] for name in form if isinstance(given.get(name), str)}
    if not form or len(kept) != len(form):
        raise Malformed("tee-pubkey: a key of type EC, RSA or AKP with the members of its type is wanted")
    if kind == "RSA" and kept["alg"] == WEAK:
        raise Refused.because(
            "session.key",
            expected=f"{jwk.ALGORITHM}, {RSA_ALGORITHM} or {KEM_ALGORITHM}",
            found=WEAK,
            hint="PKCS #1 v1.5 is not safe for keys; let the guest's agent make an EC key, which is its default",
        )
    _READERS[kept["kty"]](kept)
    return kept


def seal(plaintext: bytes, recipient: dict[str, Any]) -> dict[str, str]:
    """Encrypt to a tee-pubkey of any accepted form; the flattened JWE's members."""
    kind = recipient.get("kty")
    if kind == "RSA":
        return _sealed(plaintext, {"alg": RSA_ALGORITHM, "enc": _ENC}, lambda cek: _rsa(recipient).encrypt(cek, _OAEP))
    if kind == "AKP":
        shared, ciphertext = _kem(recipient).encapsulate()
        header = {"alg": KEM_ALGORITHM, "enc": _ENC, "ek": b64u(ciphertext)}
        return _sealed(plaintext, header, lambda cek: aes_key_wrap(kem_kek(shared), cek))
    return jwe.seal(plaintext, recipient)


def kem_kek(shared: bytes) -> bytes:
    """The AES-192 key that wraps: KMAC256 over algorithm and length, keyed with the shared secret."""
    name = KEM_ALGORITHM.encode()
    return kmac256(shared, len(name).to_bytes(4, "big") + name + (192).to_bytes(4, "big"), 24)


def _sealed(plaintext: bytes, header: dict[str, str], wrap: Callable[[bytes], bytes]) -> dict[str, str]:
    protected = b64u(json.dumps(header, separators=(",", ":")).encode())
    cek, iv = os.urandom(32), os.urandom(12)
    sealed = AESGCM(cek).encrypt(iv, plaintext, protected.encode())
    return {
        "protected": protected,
        "encrypted_key": b64u(wrap(cek)),
        "iv": b64u(iv),
        "ciphertext": b64u(sealed[:-16]),
        "tag": b64u(sealed[-16:]),
    }


_OAEP = padding.OAEP(mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=None)


def _ec(key: dict[str, Any]) -> Any:
    if key["alg"] != jwk.ALGORITHM:
        raise Malformed(f"tee-pubkey: an EC key is for {jwk.ALGORITHM}")
    return jwk.ec_public_key(key)


def _rsa(key: dict[str, Any]) -> rsa.RSAPublicKey:
    if key["alg"] != RSA_ALGORITHM:
        raise Malformed(f"tee-pubkey: an RSA key is for {RSA_ALGORITHM}")
    if len(key["n"]) > 700 or len(key["e"]) > 8:
        raise Malformed("tee-pubkey: an RSA key of 2048 to 4096 bits is wanted")
    n, e = (int.from_bytes(unb64u(key[part], f"tee-pubkey.{part}"), "big") for part in ("n", "e"))
    if not 2048 <= n.bit_length() <= 4096 or e < 65537 or not n & e & 1:
        raise Malformed("tee-pubkey: an RSA key of 2048 to 4096 bits with an odd exponent of at least 65537 is wanted")
    try:
        return rsa.RSAPublicNumbers(e, n).public_key()
    except ValueError as error:
        raise Malformed("tee-pubkey: not an RSA key") from error


def _kem(key: dict[str, Any]) -> Any:
    if key["alg"] != KEM_ALGORITHM:
        raise Malformed(f"tee-pubkey: an AKP key is for {KEM_ALGORITHM}")
    raw = unb64u(key["pub"], "tee-pubkey.pub", size=_KEM_SIZE) if len(key["pub"]) < 2 * _KEM_SIZE else b""
    try:
        from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PublicKey

        return MLKEM768PublicKey.from_public_bytes(raw)
    except (ImportError, UnsupportedAlgorithm) as error:
        raise Unusable(
            "tee-pubkey: ML-KEM is not in this broker's cryptography library", hint="use an EC key"
        ) from error
    except ValueError as error:
        raise Malformed("tee-pubkey: not an ML-KEM-768 key") from error


_READERS: dict[str, Callable[[dict[str, Any]], Any]] = {"EC": _ec, "RSA": _rsa, "AKP": _kem}
