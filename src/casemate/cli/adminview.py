"""What an admin is recorded by, read from files. A private key stays where it is: only its public half is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from casemate.errors import Unusable

_LIMIT = 64 << 10


def known_by(
    *, key: Path | None, certificate: Path | None, renewable: bool, issuer: str, subject: str
) -> dict[str, Any]:
    """The members of the request; `Unusable` unless exactly one thing is given."""
    if sum(map(bool, (key, certificate, issuer or subject))) != 1:
        raise Unusable("say by what the admin is known: --key, --certificate, or --issuer with --subject")
    if key is not None:
        return {"key": _public(_text(key), key)}
    if certificate is not None:
        return {"certificate": _text(certificate), "renewable": renewable}
    return {"issuer": issuer, "subject": subject}


def proof(key: Path, tenant: str, seconds: int = 2 * 86400) -> str | None:
    """The word of a key's holder that it is to be an admin of `tenant` (a JWT); None where the file's key is public."""
    import json
    import time

    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import padding, rsa

    from casemate.crypto import jws, signatures
    from casemate.wire.encoding import b64u

    if "PRIVATE KEY" not in (text := _text(key)):
        return None
    _public(text, key)
    private: Any = serialization.load_pem_private_key(text.encode(), password=None)
    now, public = int(time.time()), jws.of(private.public_key()).public
    head = {"alg": jws.of(public).algorithm, "typ": "JWT", "kid": jws.thumbprint(public)}
    said = {"aud": "casemate-admin", "tenant": tenant, "iat": now, "exp": now + seconds}
    message = f"{b64u(json.dumps(head).encode())}.{b64u(json.dumps(said).encode())}"
    if isinstance(private, rsa.RSAPrivateKey):  # RS256
        return f"{message}.{b64u(private.sign(message.encode(), padding.PKCS1v15(), hashes.SHA256()))}"
    return f"{message}.{b64u(signatures.sign_jose(private, message.encode()))}"


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_LIMIT).decode("ascii", "replace")
    except OSError as error:
        raise Unusable(f"{path} cannot be read: {error.strerror}") from error


def _public(text: str, path: Path) -> str:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    try:
        if "PRIVATE KEY" in text:
            private = serialization.load_pem_private_key(text.encode(), password=None)
            return private.public_key().public_bytes(encoding, form).decode()
        return serialization.load_pem_public_key(text.encode()).public_bytes(encoding, form).decode()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Unusable(f"{path} holds no key in PEM", hint="openssl genpkey -algorithm ed25519 makes one") from error
