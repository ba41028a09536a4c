"""Who is signed in at the console: a sealed cookie, bound to the record of the admin who proved itself.

It lives for 15 minutes at most, and no longer than the token that was shown for it.

Rules
1. The cookie says who came, and by which key, certificate or subject. Role and tenant are read anew at each request:
   who was removed, or has another key now, is signed in no more.
2. A subject that is an admin by its issuer's claims alone has no record: role and tenant are those of the token, which
   must not have ended, and the issuer must still be among the settings.
3. It is sealed under the ring of cookie keys that replicas share, under a label of its own: no guest's cookie passes.
"""

from __future__ import annotations

import hmac
import os
from datetime import datetime
from typing import TYPE_CHECKING, cast

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from casemate.broker import identities
from casemate.broker.identities import Admin
from casemate.broker.oidc import Role
from casemate.broker.refusals import Unauthenticated
from casemate.broker.sessions import demand_key
from casemate.crypto import jws
from casemate.drivers.store import accounts
from casemate.errors import Malformed, Refused
from casemate.wire.encoding import b64u, unb64u

if TYPE_CHECKING:
    from casemate.broker.assemble import Broker

COOKIE = "__Host-casemate-console"
SECONDS = 900
_LABEL = b"casemate console v1"
_MAX = 4096


class Login(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`known_by` is what was proved, as in the table of admins; `claimed` admins have no record. Times are seconds."""

    who: str
    known_by: str
    role: Role
    tenant: str | None
    claimed: bool
    expires: float
    csrf: str


def made(broker: Broker, admin: Admin, token: str, now: datetime) -> Login:
    """The login of an admin who proved itself just now, by `token` or (empty) by the connection's certificate."""
    with broker.store.read() as tx:
        found = accounts.admin_named(tx, admin.who)
    ends, known_by = now.timestamp() + SECONDS, found.known_by if found else f"token:{admin.who}"
    if admin.who == identities.INIT:
        known_by = _first(broker)
    if token:
        ends = min(ends, float(jws.parse(token).claims["exp"]))  # no sign-in outlives what was shown for it
    return Login(who=admin.who, known_by=known_by, role=admin.role, tenant=admin.tenant, expires=ends,
                 claimed=found is None and admin.who != identities.INIT, csrf=os.urandom(16).hex())  # fmt: skip


def sealed(broker: Broker, login: Login) -> str:
    """The cookie's value."""
    iv = os.urandom(12)
    return b64u(iv + AESGCM(broker.cookies.ring.current().secret).encrypt(iv, msgspec.json.encode(login), _LABEL))


def opened(broker: Broker, value: str, now: datetime) -> Login:
    """The login in a cookie; `Unauthenticated` when there is none, it was made elsewhere, or its time is over."""
    found = _opened(broker, value) if 0 < len(value) <= _MAX else None
    if found is None or found.expires <= now.timestamp():
        raise over()
    return found


def current(broker: Broker, login: Login) -> Admin:
    """The admin as it is recorded now; `Unauthenticated` when it is not what signed in."""
    if login.who == identities.INIT:
        if login.known_by != _first(broker):
            raise over()
        return Admin(identities.INIT, "owner")
    with broker.store.read() as tx:
        found = accounts.admin_named(tx, login.who)
        there = login.tenant is None or accounts.tenant(tx, login.tenant) is not None
    if found is not None:
        if found.known_by != login.known_by:
            raise over()
        return Admin(found.who, cast("Role", found.role), found.tenant)
    if not (login.claimed and there and login.who.rpartition("#")[0] in broker.access.issuers):
        raise over()
    return Admin(login.who, login.role, login.tenant)


def demand_form(login: Login, sent: str) -> None:
    """A form must carry the word that its page was given."""
    if not hmac.compare_digest(login.csrf.encode(), sent.encode("utf-8", "replace")):
        raise Refused.because(
            "console.form", expected="a form of this sign-in", found="another one", hint="load the page again"
        )


def over() -> Unauthenticated:
    """Nobody is signed in (any more)."""
    return Unauthenticated.because(
        "console.login", expected="a current sign-in", found="none", hint="sign in: casemate admin token --minutes 15"
    )


def _opened(broker: Broker, value: str) -> Login | None:
    try:
        raw = unb64u(value, "cookie")
    except Malformed:
        return None
    for key in reversed(broker.cookies.ring.all()):
        try:
            plain = AESGCM(key.secret).decrypt(raw[:12], raw[12:], _LABEL)
            login = msgspec.json.decode(plain, type=Login)
        except (InvalidTag, ValueError, msgspec.DecodeError):
            continue
        try:
            with broker.store.read() as tx:
                demand_key(broker, broker.store.known.at(tx), tx, key.name)
        except Unauthenticated:
            return None
        return login
    return None


def _first(broker: Broker) -> str:
    return f"init:{broker.access.first_kid}"
