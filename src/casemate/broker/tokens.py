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
from msgspec import structs

from casemate import __version__
from casemate.broker import sessions
from casemate.broker.refusals import Unauthenticated
from casemate.broker.sessions import Session
from casemate.crypto import signatures
from casemate.errors import Malformed
from casemate.release import ear
from casemate.schema.app import AppStatement
from casemate.wire import jcs
from casemate.wire.encoding import b64u, unb64u

ALGORITHM = "ES256"
ISSUER = "casemate-broker"
STATEMENT_TYPE = "casemate-app+jws"
MAX_TOKEN = 192 << 10  # a machine with many devices has a long one
MAX_HEADER = 4096
_BELIEVED = 2048


class _Confirmed(msgspec.Struct, frozen=True):
    """RFC 7800."""

    jwk: dict[str, Any]


class _Own(msgspec.Struct, frozen=True):
    """What a token says to its broker."""

    tee: str
    platform_class: str
    app: str | None
    manifest_digest: str | None
    evidence: str = ""
    collateral: str = ""
    lease: str = ""
    lease_until: float = 0.0
    attestation: str = ""


class _Told(msgspec.Struct, frozen=True):
    """The part of a token that its broker reads again."""

    iss: str
    exp: float
    cnf: _Confirmed
    casemate: _Own


_TOLD = msgspec.json.Decoder(_Told)


@dataclass(frozen=True)
class Signer:
    """The broker's signing key."""

    private: ec.EllipticCurvePrivateKey

    @cached_property
    def _public(self) -> ec.EllipticCurvePublicKey:
        return self.private.public_key()

    @cached_property
    def jwk(self) -> dict[str, Any]:
        """The public key as a JWK with its thumbprint (RFC 7638) as `kid`."""
        return ear.public_jwk(self._public)

    @cached_property
    def header(self) -> str:
        """The header of every token of this key, as it stands in front of them."""
        return b64u(jcs.compact({"typ": "JWT", "alg": ALGORITHM, "kid": self.jwk["kid"], "jwk": self.jwk}))

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
        made = self._signed(self.header, jcs.compact(self.claims(session, submods, now)))
        # What `_verified` would find: the time ends with a whole second.
        self._believe(made, structs.replace(session, expires=float(int(session.expires))))
        return made

    def _signed(self, header: str, payload: bytes) -> str:
        message = f"{header}.{b64u(payload)}"
        return f"{message}.{b64u(signatures.sign_jose(self.private, message.encode()))}"

    @cached_property
    def _believed(self) -> OrderedDict[bytes, Session]:
        """Sessions of tokens that were signed here or whose signature was seen to be good, by their SHA-256."""
        return OrderedDict()

    def _believe(self, token: str, session: Session) -> None:
        self._believed[_name(token)] = session
        while len(self._believed) > _BELIEVED:
            with contextlib.suppress(KeyError):
                self._believed.popitem(last=False)

    def session(self, token: str, now: datetime) -> Session:
        """The session that a token of ours tells of; the header's own key is never looked at.

        A token that was verified under this key before is not verified again; its time is looked at each time.
        """
        if len(token) > MAX_TOKEN:
            raise _foreign()
        session = self._believed.get(_name(token))
        if session is None:
            session = self._verified(token)
            self._believe(token, session)
        if session.expires <= now.timestamp():
            raise sessions.expired()
        return session

    def _verified(self, token: str) -> Session:
        message, _, signature = token.rpartition(".")
        header, _, payload = message.partition(".")
        try:
            if header != self.header and not _is_ours(header):
                raise _foreign()
            sealed = unb64u(signature, size=64)
            if not signatures.verify_jose(self._public, ALGORITHM, sealed, message.encode("ascii")):
                raise _foreign()
            told = _TOLD.decode(unb64u(payload))
        except (Malformed, ValueError, RecursionError, msgspec.MsgspecError):
            raise _foreign() from None
        if told.iss != ISSUER:
            raise _foreign()
        own = structs.asdict(told.casemate)
        return Session(app_id=own.pop("app"), tee_pubkey=told.cnf.jwk, expires=told.exp, **own)

    def statement(self, statement: AppStatement) -> str:
        """A compact JWS over an app's statement; its type keeps it apart from tokens."""
        header = {"typ": STATEMENT_TYPE, "alg": ALGORITHM, "kid": self.jwk["kid"]}
        return self._signed(b64u(jcs.compact(header)), msgspec.json.encode(statement))


def _name(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _is_ours(header: str) -> bool:
    """Whether a header that is written in another way (by another version) is that of a token of ours."""
    if len(header) > MAX_HEADER:
        return False
    told = jcs.parse_object(unb64u(header), "token header", limit=MAX_HEADER)
    return (told.get("typ"), told.get("alg")) == ("JWT", ALGORITHM) and not {"crit", "b64"} & set(told)


def _foreign() -> Unauthenticated:
    return Unauthenticated.because(
        "session.token",
        expected="a token that this broker signed",
        found="another one",
        hint="attest at this broker: /kbs/v0/auth, then /kbs/v0/attest",
    )
