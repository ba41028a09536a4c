"""JWE for key release: ECDH-ES+A256KW with A256GCM, flattened JSON (RFC 7516, RFC 7518 section 4.6, RFC 3394).

Own code because the peers' clients re-serialise the header to compute the AAD: key order and spacing must be exactly
`alg`, `enc`, `epk` with `epk` sorted (CoCo KBS, jwe module), and because the guest reads it on `cryptography` alone.
joserfc is the oracle in the tests.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from casemate.crypto import jwk as _jwk
from casemate.errors import Malformed
from casemate.wire.encoding import b64u, unb64u

_ENC = "A256GCM"
# Nothing in it needs an escape: names of curves and base64url.
_HEADER = f'{{"alg":"{_jwk.ALGORITHM}","enc":"{_ENC}","epk":{{"crv":"%s","kty":"%s","x":"%s","y":"%s"}}}}'


def seal(plaintext: bytes, recipient: dict[str, Any]) -> dict[str, str]:
    """Encrypt to the EC tee-pubkey `recipient`; returns the flattened JWE members."""
    public = _jwk.ec_public_key(recipient)
    ephemeral = ec.generate_private_key(public.curve)
    epk = _jwk.from_public_key(ephemeral.public_key())
    header = b64u((_HEADER % (epk["crv"], epk["kty"], epk["x"], epk["y"])).encode())
    cek, iv = os.urandom(32), os.urandom(12)
    sealed = AESGCM(cek).encrypt(iv, plaintext, header.encode())
    return {
        "protected": header,
        "encrypted_key": b64u(aes_key_wrap(_kek(ephemeral.exchange(ec.ECDH(), public)), cek)),
        "iv": b64u(iv),
        "ciphertext": b64u(sealed[:-16]),
        "tag": b64u(sealed[-16:]),
    }


def open_(message: dict[str, Any], key: ec.EllipticCurvePrivateKey) -> bytes:
    """Decrypt a flattened JWE; any departure from the one accepted form is `Malformed`."""
    if not all(isinstance(message.get(m), str) for m in ("protected", "encrypted_key", "iv", "ciphertext", "tag")):
        raise Malformed("JWE: a member is missing")
    protected: str = message["protected"]
    try:
        header = json.loads(unb64u(protected, "JWE.protected"))
        if header["alg"] != _jwk.ALGORITHM or header["enc"] != _ENC:
            raise Malformed("JWE: another algorithm than ECDH-ES+A256KW with A256GCM")
        peer = _jwk.ec_public_key(header["epk"])
        shared = key.exchange(ec.ECDH(), peer)
        cek = aes_key_unwrap(_kek(shared), unb64u(message["encrypted_key"], "JWE.encrypted_key", size=40))
        iv = unb64u(message["iv"], "JWE.iv", size=12)
        sealed = unb64u(message["ciphertext"], "JWE.ciphertext") + unb64u(message["tag"], "JWE.tag", size=16)
        return AESGCM(cek).decrypt(iv, sealed, protected.encode())
    except (KeyError, TypeError, AttributeError, ValueError, InvalidUnwrap, InvalidTag, RecursionError) as error:
        raise Malformed(f"JWE: cannot be opened ({type(error).__name__})") from None


def _kek(shared: bytes) -> bytes:
    """Concat KDF, one round, empty PartyUInfo and PartyVInfo, 256 bits (RFC 7518 section 4.6.2)."""
    name = _jwk.ALGORITHM.encode()
    info = len(name).to_bytes(4, "big") + name + bytes(4) + bytes(4) + (256).to_bytes(4, "big")
    return hashlib.sha256((1).to_bytes(4, "big") + shared + info).digest()
