"""Changes that wait for a second owner, all within a transaction."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from casemate.drivers.store.registry import millis, rfc3339
from casemate.drivers.store.tables_access import approvals

PENDING, APPROVED, REJECTED, EXPIRED = "pending", "approved", "rejected", "expired"
KEPT = timedelta(days=90)  # from the end of its wait
_c = approvals.c


@dataclass(frozen=True)
class Approval:
    """A change and what became of it; `sealed` is the change itself while it waits, times are RFC 3339."""

    id: str
    tenant: str | None
    act: str
    digest: str
    sealed: bytes
    who: str
    state: str
    created: str
    expires: str
    decider: str | None
    decided: str | None
    outcome: str | None


def add(
    tx: Connection,
    *,
    number: str,
    tenant: str | None,
    act: str,
    digest: str,
    sealed: bytes,
    who: str,
    now: datetime,
    expires: datetime,
) -> None:
    """Record a change that waits."""
    values = {"id": number, "tenant": tenant, "act": act, "digest": digest, "sealed": sealed, "who": who}
    tx.execute(insert(approvals).values(**values, state=PENDING, created=millis(now), expires=millis(expires)))


def waiting(tx: Connection, tenant: str | None, who: str | None = None) -> int:
    """How many changes of a tenant wait: all, or those that somebody asked for."""
    whose = _c.tenant.is_(None) if tenant is None else _c.tenant == tenant
    query = select(func.count()).select_from(approvals).where(_c.state == PENDING, whose)
    return int(tx.execute(query if who is None else query.where(_c.who == who)).scalar_one())


def get(tx: Connection, number: str) -> Approval | None:
    """One change, or None."""
    return _approval(tx.execute(select(approvals).where(_c.id == number)).one_or_none())


def listing(tx: Connection, limit: int, tenant: str | None) -> list[Approval]:
    """The newest changes of a tenant, or (None) of all, newest first."""
    query = select(approvals).order_by(_c.created.desc()).limit(limit)
    rows = tx.execute(query if tenant is None else query.where(_c.tenant == tenant))
    return [found for row in rows if (found := _approval(row)) is not None]


def decide(tx: Connection, number: str, state: str, decider: str, now: datetime) -> bool:
    """End the wait of one change; False when it waits no more. Of several who decide at once one gets True."""
    chosen = (_c.id == number) & (_c.state == PENDING) & (_c.expires > millis(now))
    ended = {"state": state, "decider": decider, "decided": millis(now), "sealed": b""}
    return tx.execute(update(approvals).where(chosen).values(ended)).rowcount == 1


def reopen(tx: Connection, number: str, sealed: bytes) -> bool:
    """Let an approved change wait again, of which nothing came yet; False when there is none."""
    chosen = (_c.id == number) & (_c.state == APPROVED) & _c.outcome.is_(None)
    again = {"state": PENDING, "decider": None, "decided": None, "sealed": sealed}
    return tx.execute(update(approvals).where(chosen).values(again)).rowcount == 1


def finish(tx: Connection, number: str, outcome: str) -> None:
    """Keep what came of an approved change."""
    tx.execute(update(approvals).where(_c.id == number).values(outcome=outcome))


def reject_of(tx: Connection, who: str, decider: str, now: datetime) -> None:
    """Reject what somebody asked for and nobody approved."""
    chosen = (_c.who == who) & (_c.state == PENDING)
    ended = {"state": REJECTED, "decider": decider, "decided": millis(now), "sealed": b""}
    tx.execute(update(approvals).where(chosen).values(ended))


def expire(tx: Connection, now: datetime) -> None:
    """End the wait of what nobody approved in time, and forget what ended long ago."""
    over = (_c.state == PENDING) & (_c.expires <= millis(now))
    tx.execute(update(approvals).where(over).values(state=EXPIRED, sealed=b""))
    tx.execute(delete(approvals).where(_c.state != PENDING, _c.expires <= millis(now - KEPT)))


def any_over(tx: Connection, now: datetime) -> bool:
    """Whether `expire` would change something."""
    over = (_c.state == PENDING) & (_c.expires <= millis(now))
    old = (_c.state != PENDING) & (_c.expires <= millis(now - KEPT))
    return tx.execute(select(_c.id).where(over | old).limit(1)).first() is not None


def _approval(row: Row[tuple[object, ...]] | None) -> Approval | None:
    if row is None:
        return None
    return Approval(
        id=row.id,
        tenant=row.tenant,
        act=row.act,
        digest=row.digest,
        sealed=bytes(row.sealed),
        who=row.who,
        state=row.state,
        created=rfc3339(row.created),
        expires=rfc3339(row.expires),
        decider=row.decider,
        decided=rfc3339(row.decided) if row.decided is not None else None,
        outcome=row.outcome,
    )
