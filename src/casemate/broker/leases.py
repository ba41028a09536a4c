"""Leases: what a guest was given is its for a while, and only by attesting again does it keep it.

Rules
1. An attestation that is allowed gives a lease of `lease_seconds`, or renews the live one that the guest names.
2. A grant needs a live lease. One that was ended is answered 401: the guest attests again, and what has changed since
   (a revoked release, another policy, a lower TCB level) decides whether it gets a new one.
3. A lease is one key's: a renewal moves it to the key that attested, and what the key before it opened is over. So
   guests that share a lease's id take it from each other, and never read both.
4. Where an app allows k holders, the lease number k+1 is refused. The count is taken in the transaction that grants.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Table

from casemate.broker import journal
from casemate.broker.sessions import Session, demand_key
from casemate.drivers.store import leases as stored
from casemate.drivers.store.leases import Seen
from casemate.drivers.store.registry import millis
from casemate.drivers.store.tables_secrets import leases as table
from casemate.errors import Finding, Malformed, Refused, Unavailable
from casemate.release.session import NO_LEASE

if TYPE_CHECKING:
    from casemate.broker.assemble import Broker

RULE = "lease.live"
MOST = 100_000
_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Plan:
    """What an attestation does to leases, for `journal.decided`: rows to insert, or an act in its transaction."""

    id: str = ""
    until: float = 0.0
    findings: tuple[Finding, ...] = ()
    rows: Sequence[tuple[Table, dict[str, Any]]] = ()
    together: Callable[[Connection], None] | None = None

    @property
    def recorded(self) -> dict[str, Any]:
        """What `journal.decided` takes of this."""
        return {"facts": {"lease": self.id or None}, "rows": self.rows, "together": self.together}

    def demand(self) -> None:
        """`Refused` where the app has no place left."""
        if not all(f.ok for f in self.findings):
            raise Refused(self.findings)


def named(text: str) -> str:
    """The lease that a guest wants to renew, as it names it, or `NO_LEASE`; empty for anything else."""
    return text if text == NO_LEASE or _ID.fullmatch(text) else ""


def seen(tx: Connection, app_id: str | None, renews: str, now: datetime) -> Seen | None:
    """What `plan` needs of the store, in the transaction that is being read anyway."""
    return None if app_id is None else stored.seen(tx, app_id, renews, now)


def plan(broker: Broker, found: Seen | None, session: Session, renews: str, now: datetime, *, allowed: bool) -> Plan:
    """The lease of a guest that just attested; nothing for one that has no app, is refused or wants none."""
    if found is None or session.app_id is None or session.manifest_digest is None or not allowed or renews == NO_LEASE:
        return Plan()
    app_id, seconds = session.app_id, broker.settings.lease_seconds
    until = (now + timedelta(seconds=seconds)).timestamp()
    values = {
        "manifest_digest": session.manifest_digest,
        "tee": session.tee,
        "holder": journal.thumbprint(session.tee_pubkey),
        "renewed": millis(now),
        "expires": millis(now) + seconds * 1000,
    }
    if found.renews:
        return Plan(renews, until, together=lambda tx: _renew(tx, app_id, renews, values, now))
    lease = os.urandom(16).hex()
    row = {"id": lease, "app_id": app_id, "begun": millis(now), "ended": None, "why": None, **values}
    if found.limit is None:
        return Plan(lease, until, rows=((table, row),))
    finding = _room(found.limit, found.held)
    if not finding.ok:
        return Plan(findings=(finding,))
    return Plan(lease, until, (finding,), together=lambda tx: _take(tx, row, now))


def judge(tx: Connection, session: Session, now: datetime) -> tuple[Finding, ...]:
    """`lease.live` for a session of an app's guest."""
    if session.app_id is None:
        return ()
    ok = stored.is_live(tx, session.app_id, session.lease, journal.thumbprint(session.tee_pubkey), now)
    hint = "" if ok else "attest again; who may have a lease then gets a new one"
    return (Finding(RULE, "a lease that is live", "live" if ok else "expired, ended or another key's", hint, ok=ok),)


def left(session: Session, now: datetime) -> int:
    """Whole seconds that a session's lease still has."""
    return max(0, int(session.lease_until - now.timestamp()))


def release(broker: Broker, session: Session) -> None:
    """A guest that stops gives its lease back, so that another one may have its place at once."""
    if session.app_id is None or not session.lease:
        return
    chosen = {"lease": session.lease, "app_id": session.app_id, "holder": journal.thumbprint(session.tee_pubkey)}
    facts = {"app": session.app_id, "release": session.manifest_digest, "lease": session.lease}

    def act(tx: Connection) -> None:
        demand_key(broker, broker.store.known.at(tx), tx, session.key)
        if stored.end(tx, broker.clock(), "released", **chosen):
            journal.admin(broker, tx, who=journal.guest(session), act="lease.release", facts=facts)

    broker.store.written(act)


def end(broker: Broker, *, who: str, **chosen: str | None) -> int:
    """End live leases by `app_id`, `tee`, `tenant` or `lease`; every guest concerned attests again at once."""

    def act(tx: Connection) -> int:
        ended = stored.end(tx, broker.clock(), "admin", **chosen)
        facts = {"app" if name == "app_id" else name: value for name, value in chosen.items() if value is not None}
        journal.admin(broker, tx, who=who, act="lease.end", facts={**facts, "count": ended})
        return ended

    return broker.store.written(act)


def recall(tx: Connection, now: datetime, why: str, **chosen: str | None) -> int:
    """`end` inside the transaction of the act that causes it (a revocation, a policy)."""
    return stored.end(tx, now, why, **chosen)


def set_limit(broker: Broker, app_id: str, most: int | None, *, who: str) -> None:
    """How many guests of an app may hold a lease at a time; those that are live stay."""
    if most is not None and not 1 <= most <= MOST:
        raise Malformed(f"max_holders: 1 to {MOST}, or null for any number")

    def act(tx: Connection) -> None:
        stored.set_limit(tx, app_id, most)
        journal.admin(broker, tx, who=who, act="app.holders", facts={"app": app_id, "max_holders": most})

    broker.store.written(act)


def listing(broker: Broker, *, app_id: str | None, tenant: str | None, limit: int) -> list[dict[str, Any]]:
    """The newest leases."""
    with broker.store.read() as tx:
        return stored.listing(tx, broker.clock(), app_id=app_id, tenant=tenant, limit=limit)


def _renew(tx: Connection, app_id: str, lease: str, values: dict[str, Any], now: datetime) -> None:
    if not stored.renew(tx, app_id, lease, values, now):
        raise Unavailable("the lease ended a moment ago", hint="attest again")


def _take(tx: Connection, row: dict[str, Any], now: datetime) -> None:
    """Insert unless others were quicker; the log's lock puts those that attest in turn."""
    most = stored.limit(tx, row["app_id"])
    if most is not None and stored.held(tx, row["app_id"], now) >= most:
        raise Unavailable("another guest took the last place a moment ago", hint="attest again")
    tx.execute(table.insert().values(**row))


def _room(most: int, held: int) -> Finding:
    ok = held < most
    hint = "" if ok else "wait until a guest stops or its lease ends; casemate secret leases shows them"
    return Finding("lease.holders", f"fewer than {most} live holders", str(held), hint, ok=ok)
