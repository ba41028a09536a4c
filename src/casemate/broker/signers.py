"""The broker's signing keys, as one signer: the key in use signs, every key that still counts verifies."""

from __future__ import annotations

import json
from datetime import datetime
from functools import lru_cache
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec import structs

from casemate.broker.keyring import Keyring, Shared
from casemate.broker.sessions import Challenge, Cookies, Session
from casemate.broker.tokens import ALGORITHM, MAX_HEADER, Signer
from casemate.crypto import selfsigned, signatures
from casemate.errors import Malformed, Refused, Unusable
from casemate.schema.app import AppStatement
from casemate.wire import jcs
from casemate.wire.encoding import b64u, unb64u

SIGNING, COOKIE = "signing", "cookie"
FOREIGN = "session.cookie"  # the rule that a cookie breaks which another key sealed


def make() -> bytes:
    """A new signing key (PEM)."""
    return selfsigned.key_pem(ec.generate_private_key(ec.SECP256R1()))


@lru_cache(maxsize=64)
def _signer(pem: bytes) -> Signer:
    private = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise Unusable("the store's signing key is not an EC key")
    return Signer(private)


class Signers:
    """What `Signer` does, by the keys of a ring."""

    claims = staticmethod(Signer.claims)

    def __init__(self, ring: Keyring) -> None:
        self.ring = ring

    @property
    def current(self) -> Signer:
        """The signer in use."""
        return _signer(self.ring.current().secret)

    @property
    def private(self) -> ec.EllipticCurvePrivateKey:
        """The key in use."""
        return self.current.private

    @property
    def jwk(self) -> dict[str, Any]:
        """The public key in use."""
        return self.current.jwk

    def jwks(self) -> list[dict[str, Any]]:
        """Every public key that counts or will count soon, newest first."""
        return [_signer(key.secret).jwk for key in reversed(self.ring.all())]

    def token(self, session: Session, submods: dict[str, Any], now: datetime) -> str:
        """As `Signer.token`."""
        return self.current.token(session, submods, now)

    def session(self, token: str, now: datetime) -> Session:
        """As `Signer.session`, by the key that the token names."""
        key = self._named(token)
        return structs.replace(_signer(key.secret).session(token, now), key=key.name)

    def statement(self, statement: AppStatement) -> str:
        """As `Signer.statement`."""
        return self.current.statement(statement)

    def issue(self, claims: dict[str, Any]) -> str:
        """A JWT (ES256) of these claims; unlike the results of attestation it carries no key of its own."""
        key = self.current
        header = {"alg": ALGORITHM, "typ": "JWT", "kid": key.jwk["kid"]}
        signed = f"{b64u(json.dumps(header).encode())}.{b64u(json.dumps(claims).encode())}"
        return f"{signed}.{b64u(signatures.sign_jose(key.private, signed.encode()))}"

    def _named(self, token: str) -> Shared:
        header = token.partition(".")[0]
        for key in reversed(self.ring.all()):
            if _signer(key.secret).header == header:
                return key
        kid = _kid(header)
        for _ in range(2):
            for key in reversed(self.ring.all()):
                if kid is None or _signer(key.secret).jwk["kid"] == kid:
                    return key
            if not self.ring.refresh():
                break
        return self.ring.current()  # which did not sign it, and says so


class RingCookies:
    """What `Cookies` does, by the keys of a ring."""

    def __init__(self, ring: Keyring) -> None:
        self.ring = ring

    def seal(self, content: Challenge | Session) -> str:
        """As `Cookies.seal`, under the key in use."""
        return Cookies(self.ring.current().secret).seal(content)

    def open(self, value: str, now: datetime) -> Challenge | Session:
        """As `Cookies.open`, under any key that counts."""
        first, *later = self.ring.all()
        for key in reversed(later):
            try:
                return _opened(key, value, now)
            except Refused as error:
                if error.findings[0].rule != FOREIGN:
                    raise
        return _opened(first, value, now)


def _opened(key: Shared, value: str, now: datetime) -> Challenge | Session:
    return structs.replace(Cookies(key.secret).open(value, now), key=key.name)


def _kid(header: str) -> str | None:
    """The key that a token's header names; it only chooses among our own."""
    try:
        told = jcs.parse_object(unb64u(header[:MAX_HEADER], "token header"), "token header", limit=MAX_HEADER)
    except Malformed:
        return None
    kid = told.get("kid")
    return kid if isinstance(kid, str) else None
