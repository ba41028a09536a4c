"""What happened: decisions and spent nonces; and the keys that replicas share."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, Delete, delete, exc, insert, select

from casemate.drivers.store import tables as t
from casemate.drivers.store.engine import AlreadySpent
from casemate.drivers.store.quick import Quick, among
from casemate.drivers.store.registry import millis, rfc3339
from casemate.errors import Finding
from casemate.wire import jcs

# Strangers can cause entries about evidence that is not genuine: only the newest of those are kept.
MAX_UNGENUINE = 10_000
_COLUMNS = ("time", "act", "genuine", "allowed", "app_id", "manifest_digest", "tee", "resource", "findings")
# How long a nonce is remembered after its challenge expired: replicas' clocks may differ by so much.
MARGIN = timedelta(hours=1)


class Ticket(NamedTuple):
    """A nonce as it is recorded once spent, and when the challenge that it is of expires (milliseconds)."""

    nonce: str
    ends: int


def decide(
    tx: Connection,
    now: datetime,
    act: str,
    findings: Iterable[Finding],
    *,
    genuine: bool,
    app_id: str | None = None,
    manifest_digest: str | None = None,
    tee: str | None = None,
    resource: str | None = None,
) -> int:
    """Record one decision, allowed when no finding failed; returns its number."""
    told = row(
        now,
        act,
        findings,
        genuine=genuine,
        app_id=app_id,
        manifest_digest=manifest_digest,
        tee=tee,
        resource=resource,
    )
    done = tx.execute(insert(t.decisions).values(**told))
    number = int(done.inserted_primary_key[0])  # type: ignore[index] # one row was inserted, so it has a key
    if not genuine and number % 100 == 0:
        trim(tx)
    return number


def row(now: datetime, act: str, findings: Iterable[Finding], *, genuine: bool, **about: str | None) -> dict[str, Any]:
    """A decision as `add` takes it; `about`: `app_id`, `manifest_digest`, `tee`, `resource`."""
    told = list(findings)
    known = {name: about.get(name) for name in ("app_id", "manifest_digest", "tee", "resource")}
    allowed = bool(told) and all(f.ok for f in told)
    found = jcs.compact([f.as_json() for f in told]).decode()
    return {"time": millis(now), "act": act, "genuine": genuine, "allowed": allowed, **known, "findings": found}


def add(tx: Connection, rows: list[dict[str, Any]]) -> None:
    """Record many decisions at once."""
    if rows:
        Quick(tx).insert(t.decisions, _COLUMNS, [[row[name] for name in _COLUMNS] for row in rows])


def trim(tx: Connection) -> None:
    """Forget all but the newest decisions on evidence that is not genuine."""
    c = t.decisions.c
    edge = select(c.id).where(c.genuine.is_(False)).order_by(c.id.desc()).offset(MAX_UNGENUINE).limit(1)
    last = tx.execute(edge).scalar_one_or_none()
    if last is not None:
        tx.execute(delete(t.decisions).where(c.genuine.is_(False), c.id <= last))


def decisions(
    tx: Connection, limit: int, app_id: str | None = None, tenant: str | None = None, allowed: bool | None = None
) -> list[dict[str, Any]]:
    """The newest decisions, newest first: all, those on one app, those on a tenant's apps, those of one outcome."""
    query = select(t.decisions).order_by(t.decisions.c.id.desc()).limit(limit)
    if app_id is not None:
        query = query.where(t.decisions.c.app_id == app_id)
    if allowed is not None:
        query = query.where(t.decisions.c.allowed.is_(allowed))
    if tenant is not None:
        theirs = select(t.apps.c.app_id).where(t.apps.c.tenant == tenant)
        query = query.where(t.decisions.c.app_id.in_(theirs))
    return [
        {
            "id": row.id,
            "time": rfc3339(row.time),
            "act": row.act,
            "allowed": row.allowed,
            "app": row.app_id,
            "manifest_digest": row.manifest_digest,
            "tee": row.tee,
            "resource": row.resource,
            "findings": json.loads(row.findings),
        }
        for row in tx.execute(query)
    ]


def is_spent(tx: Connection, nonce: str) -> bool:
    """Whether a nonce was used: a cheap answer before costly verification; `spend` decides."""
    return tx.execute(select(t.spent_nonces.c.nonce).where(t.spent_nonces.c.nonce == nonce)).first() is not None


def spend(tx: Connection, ticket: Ticket, now: datetime) -> None:
    """Use up a nonce, or `AlreadySpent`. Those that no cookie can name any more are forgotten."""
    tx.execute(_over(now))
    try:
        tx.execute(insert(t.spent_nonces).values(nonce=ticket.nonce, spent=ticket.ends))
    except exc.IntegrityError as error:
        raise AlreadySpent("the nonce was used before") from error


def used(tx: Connection, nonces: Collection[str]) -> set[str]:
    """Which of these nonces were used before. Under the log's lock nobody else uses one meanwhile."""
    if not nonces:
        return set()
    query = f"SELECT nonce FROM spent_nonces WHERE nonce IN {among(len(nonces))}"  # noqa: S608 - question marks
    return {row[0] for row in Quick(tx).rows(query, *nonces)}


def spend_all(tx: Connection, tickets: Collection[Ticket], now: datetime, *, forget: bool) -> None:
    """Use up nonces that `used` did not know; with `forget`, forget those that no cookie can name any more."""
    if forget:
        tx.execute(_over(now))
    if tickets:
        Quick(tx).insert(t.spent_nonces, ("nonce", "spent"), list(tickets))


def _over(now: datetime) -> Delete:
    # By each challenge's own end: the settings of the replica that forgets say nothing of what another one promised.
    return delete(t.spent_nonces).where(t.spent_nonces.c.spent < millis(now - MARGIN))


def key(tx: Connection, name: str) -> bytes | None:
    """A shared key, sealed, or None."""
    found = tx.execute(select(t.keys.c.sealed).where(t.keys.c.name == name)).scalar_one_or_none()
    return None if found is None else bytes(found)


def add_key(tx: Connection, name: str, sealed: bytes, now: datetime) -> None:
    """Store a shared key; an IntegrityError tells that another replica was first."""
    tx.execute(insert(t.keys).values(name=name, sealed=sealed, created=millis(now)))
