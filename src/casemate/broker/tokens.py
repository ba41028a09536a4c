"""Tokens: attestation results as EAR (draft-ietf-rats-ear, CoCo's profile) in an ES256 JWT, and app statements.

The guest's key stands where CoCo's key broker looks for it (`submods.cpu0 … runtime_data_claims.tee-pubkey`) and in
`cnf` (RFC 7800). What this broker needs of its own tokens is under `casemate`.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from casemate import __version__
from casemate.broker import sessions
from casemate.broker.refusals import Unauthenticated
from casemate.broker.sessions import Session
from casemate.crypto import selfsigned
from casemate.release import ear
from casemate.schema.app import AppStatement

ALGORITHM = "ES256"
ISSUER = "casemate-broker"
STATEMENT_TYPE = "casemate-app+jws"
MAX_TOKEN = 192 << 10  # a machine with many devices has a long one
_BELIEVED = 2048


@dataclass(frozen=True)
class Signer:
    """The broker's signing key."""

    private: ec.EllipticCurvePrivateKey

    @cached_property
    def _key(self) -> ECKey:
        return ECKey.import_key(selfsigned.key_pem(self.private))

    @cached_property
    def jwk(self) -> dict[str, Any]:
        """The public key as a JWK with its thumbprint (RFC 7638) as `kid`."""
        public = {k: v for k, v in self._key.as_dict(private=False).items() if k in ("kty", "crv", "x", "y")}
        return {**public, "alg": ALGORITHM, "use": "sig", "kid": self._key.thumbprint()}

    @staticmethod
    def claims(session: Session, submods: dict[str, Any], now: datetime) -> dict[str, Any]:
        """What an EAR of these submodules (`ear.submods`) says."""
        return {
            "eat_profile": ear.PROFILE,
            "iss": ISSUER,
            "iat": int(now.timestamp()),
            "exp": int(session.expires),
            "cnf": {"jwk": session.tee_pubkey},
            "ear.verifier-id": ear.verifier(__version__),
            "submods": submods,
            "casemate": {
                "tee": session.tee,
                "platform_class": session.platform_class,
                "app": session.app_id,
                "manifest_digest": session.manifest_digest,
                "evidence": session.evidence,
                "collateral": session.collateral,
                "lease": session.lease,
                "lease_until": session.lease_until,
                "attestation": session.attestation,
            },
        }

    def token(self, session: Session, submods: dict[str, Any], now: datetime) -> str:
        """An EAR of these submodules, signed."""
        claims = self.claims(session, submods, now)
        header = {"typ": "JWT", "alg": ALGORITHM, "kid": self.jwk["kid"], "jwk": self.jwk}
        return jwt.encode(header, claims, self._key, algorithms=[ALGORITHM])

    @cached_property
    def _believed(self) -> OrderedDict[bytes, Session]:
        """Sessions of tokens whose signature was seen to be good, by the SHA-256 of the token."""
        return OrderedDict()

    def session(self, token: str, now: datetime) -> Session:
        """The session that a token of ours tells of; the header's own key is never looked at.

        A token that was verified under this key before is not verified again; its time is looked at each time.
        """
        if len(token) > MAX_TOKEN:
            raise _foreign()
        name = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        session = self._believed.get(name)
        if session is None:
            session = self._verified(token)
            self._believed[name] = session
            while len(self._believed) > _BELIEVED:
                with contextlib.suppress(KeyError):
                    self._believed.popitem(last=False)
        if session.expires <= now.timestamp():
            raise sessions.expired()
        return session

    def _verified(self, token: str) -> Session:
        try:
            found = jwt.decode(token, self._key, algorithms=[ALGORITHM])
            claims = found.claims
            if found.header.get("typ") != "JWT" or claims.get("iss") != ISSUER:
                raise ValueError("not a token")
            told = {**claims["casemate"], "tee_pubkey": claims["cnf"]["jwk"], "expires": claims["exp"]}
            return msgspec.convert({"app_id": told.pop("app"), **told, "type": "session"}, Session)
        except (JoseError, ValueError, KeyError, TypeError, AttributeError, RecursionError, msgspec.ValidationError):
            raise _foreign() from None

    def statement(self, statement: AppStatement) -> str:
        """A compact JWS over an app's statement; its type keeps it apart from tokens."""
        header = {"typ": STATEMENT_TYPE, "alg": ALGORITHM, "kid": self.jwk["kid"]}
        return jws.serialize_compact(header, msgspec.json.encode(statement), self._key, algorithms=[ALGORITHM])


def _foreign() -> Unauthenticated:
    return Unauthenticated.because(
        "session.token",
        expected="a token that this broker signed",
        found="another one",
        hint="attest at this broker: /kbs/v0/auth, then /kbs/v0/attest",
    )
