"""Tokens of attested guests for others (a vault, a cloud's IAM): who it is, said by this broker, for one audience.

Rules
1. Only for an audience that the app's owner allowed, and only inside the JWE to the attested key: who holds the
   session's token without that key gets nothing.
2. It lives as long as a session's token at most, and not beyond the guest's lease. `cnf` names the guest's key.
3. `iss` is the broker's address, never that of its own attestation results, so that neither is taken for the other.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from casemate.broker import identities, journal, leases, policies, resources
from casemate.broker.refusals import Missing
from casemate.broker.sessions import Session, demand_key
from casemate.broker.tokens import ISSUER
from casemate.crypto import recipient
from casemate.drivers.store import accounts
from casemate.errors import Finding, Malformed
from casemate.schema.app import AppStatement

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from casemate.broker.assemble import Broker

PLUGIN = "token"
MAX_AUDIENCES = 32
_AUDIENCE = re.compile(r"[\x21-\x7e]{1,256}")


def token(broker: Broker, session: Session, path: str, audience: str) -> resources.Grant:
    """A token for `audience`, sealed to the attested guest's key; `Refused` with every rule that says no."""
    _demand_name(audience)
    now = broker.clock()
    with broker.store.read() as tx:
        demand_key(broker, broker.store.known.at(tx), tx, session.key)
        statement, manifest = resources.running(tx, session)
        allowed = accounts.audiences_of(tx, session.app_id) if session.app_id else ()
        lease = leases.judge(tx, session, now)
    findings = (*resources.still(session, statement, manifest), _allowed(audience, allowed), *lease)
    if statement is not None and all(f.ok for f in findings):
        tenant = statement.founding.tenant
        findings += policies.narrow(broker, session, tenant, path, plugin=PLUGIN, query={"aud": audience})
    sealed = None
    if statement is not None and all(f.ok for f in findings):
        said = _claims(broker, session, statement, audience)
        sealed = recipient.seal(broker.signer.issue(said).encode(), session.tee_pubkey)
    facts = {"audience": audience, "lease": session.lease or None}
    receipt = journal.decided(broker, "token", now, session, findings, resource=f"{PLUGIN}/{path}", facts=facts)
    if sealed is None:
        resources.refuse(findings)
    return resources.Grant(0, sealed, receipt, leases.left(session, now))


def allow(broker: Broker, app_id: str, names: tuple[str, ...], *, who: str) -> tuple[str, ...]:
    """Replace the audiences that an app's guests may get tokens for."""
    if len(names) > MAX_AUDIENCES:
        raise Malformed(f"audiences: at most {MAX_AUDIENCES} are allowed")
    for name in names:
        _demand_name(name)
    ours = {ISSUER, broker.settings.issuer_url, *(one.audience for one, _ in broker.access.issuers.values())}
    ours |= {identities.AUDIENCE, identities.CONSOLE, identities.PROOF}
    if ours & set(names):
        raise Malformed("audiences: this broker itself is none, and no guest gets a token that makes an admin")
    kept = tuple(dict.fromkeys(names))

    def act(tx: Connection) -> None:
        if accounts.tenant_of(tx, app_id) is None:
            raise Missing(f"no app {app_id[:80]}", hint="casemate app list")
        accounts.set_audiences(tx, app_id, kept)
        journal.admin(broker, tx, who=who, act="app.audiences", facts={"app": app_id, "audiences": list(kept)})

    broker.store.written(act)
    return kept


def listing(broker: Broker, app_id: str) -> tuple[str, ...]:
    """For whom an app's guests may get tokens."""
    with broker.store.read() as tx:
        return accounts.audiences_of(tx, app_id)


def _claims(broker: Broker, session: Session, statement: AppStatement, audience: str) -> dict[str, Any]:
    now = broker.clock().timestamp()
    ends = min(now + broker.settings.token_seconds, session.lease_until or float("inf"))
    return {
        "iss": broker.settings.issuer_url,
        "sub": statement.app_id,
        "aud": audience,
        "iat": int(now),
        "nbf": int(now),
        "exp": int(ends),
        "jti": os.urandom(16).hex(),
        "cnf": {"jwk": session.tee_pubkey},
        "tenant": statement.founding.tenant,
        "app": statement.founding.name,
        "release": session.manifest_digest,
        "tee": session.tee,
        "platform_class": session.platform_class,
    }


def _allowed(audience: str, allowed: tuple[str, ...]) -> Finding:
    ok = audience in allowed
    hint = "" if ok else "the app's owner allows it: casemate app audiences"
    return Finding("token.audience", "an audience that the app allows", "allowed" if ok else "another", hint, ok=ok)


def _demand_name(audience: str) -> None:
    if not _AUDIENCE.fullmatch(audience):
        raise Malformed("aud: an audience of up to 256 printable characters is wanted")
