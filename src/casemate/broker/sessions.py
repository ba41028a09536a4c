"""Sessions without state: what `/auth` must remember rides sealed in the cookie, so any replica can answer `/attest`.

Cookie: base64url of iv (12) | AES-256-GCM of a JSON object, under a key that replicas share. After a successful
`/attest` the same cookie carries the session, so that CoCo's clients may use it instead of the token.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from casemate.broker.refusals import Unauthenticated
from casemate.drivers.store import successions
from casemate.errors import Malformed
from casemate.schema.claims import Claims
from casemate.wire.encoding import b64u, unb64u

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from casemate.broker.assemble import Broker
    from casemate.drivers.store.known import View

_LABEL = b"casemate cookie v1"
MAX_COOKIE = 8192


class Challenge(msgspec.Struct, frozen=True, kw_only=True, tag="challenge"):
    """What `/auth` promised: the nonce, for which TEE, until when (seconds since 1970).

    `state` is what the asker alone keeps for a TEE whose question is more than a nonce. `key` names the key that it was
    opened with (`demand_key`); at rest it is empty.
    """

    nonce: str
    tee: str
    expires: float
    state: dict[str, bytes] = {}
    key: str = ""


class Session(msgspec.Struct, frozen=True, kw_only=True, tag="session"):
    """What `/attest` found: which manifest of which app runs there, and the key to seal answers to.

    `app_id` and `manifest_digest` are None for a genuine guest that brought no manifest: it gets no resources.
    `attestation` is the id of the record of all that was found, for policies.
    `evidence` and `collateral` are digests (`proof.py`), for the receipts of what is released later. `key` names the
    key that opened or verified it (`demand_key`); at rest it is empty.
    """

    tee: str
    platform_class: str
    app_id: str | None
    manifest_digest: str | None
    tee_pubkey: dict[str, Any]
    expires: float
    evidence: str = ""
    collateral: str = ""
    attestation: str = ""
    lease: str = ""
    lease_until: float = 0.0
    key: str = ""


@dataclass(frozen=True)
class Cookies:
    """Seals and opens cookies."""

    key: bytes

    def seal(self, content: Challenge | Session) -> str:
        """The cookie's value."""
        iv = os.urandom(12)
        return b64u(iv + AESGCM(self.key).encrypt(iv, msgspec.json.encode(content), _LABEL))

    def open(self, value: str, now: datetime) -> Challenge | Session:
        """What the cookie carries; `Unauthenticated` when it was not made here, was changed or has expired."""
        try:
            if len(value) > MAX_COOKIE:
                raise Malformed("cookie: too long")
            raw = unb64u(value, "cookie")
            plain = AESGCM(self.key).decrypt(raw[:12], raw[12:], _LABEL)
            found: Challenge | Session = msgspec.json.decode(plain, type=Challenge | Session)
        except (Malformed, InvalidTag, ValueError, msgspec.DecodeError):
            raise Unauthenticated.because(
                "session.cookie",
                expected="a cookie that this broker made",
                found="another one",
                hint="start again at /kbs/v0/auth",
            ) from None
        if found.expires <= now.timestamp():
            raise expired()
        return found


def begun(
    claims: Claims,
    app_id: str | None,
    manifest_digest: str | None,
    tee_pubkey: dict[str, Any],
    *,
    expires: float,
    proofs: tuple[str, str],
) -> Session:
    """The session of a guest that was judged; `proofs` are the digests of its evidence and of the collateral."""
    return Session(
        tee=claims.tee,
        platform_class=claims.platform_class,
        app_id=app_id,
        manifest_digest=manifest_digest,
        tee_pubkey=tee_pubkey,
        expires=expires,
        evidence=proofs[0],
        collateral=proofs[1],
        attestation=os.urandom(16).hex(),
    )


def expired() -> Unauthenticated:
    """The refusal of a challenge or session whose time is over."""
    return Unauthenticated.because(
        "session.expired", expected="a current session", found="its time is over", hint="attest again"
    )


def demand_key(broker: Broker, known: View, tx: Connection, key: str) -> None:
    """`Unauthenticated` where the key of a challenge or session was revoked, by this replica or another one."""
    if key and key not in known.get("keys", lambda: successions.names(tx)):
        for ring in broker.keyrings:
            ring.refresh()
        raise expired()


def absent() -> Unauthenticated:
    """The refusal of a caller without cookie and token (CoCo: TokenNotFound)."""
    return Unauthenticated.because(
        "session.absent",
        expected="a session cookie or a bearer token",
        found="neither",
        hint="attest first: /kbs/v0/auth, then /kbs/v0/attest",
    )


def until(now: datetime, seconds: int) -> float:
    """`seconds` from now, as seconds since 1970."""
    return (now + timedelta(seconds=seconds)).timestamp()
