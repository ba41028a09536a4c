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
