"""Leases in the store: one row a guest, found by its id; live until it expires or is ended."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, bindparam, delete, func, select, update

from casemate.drivers.store import tables
from casemate.drivers.store import tables_secrets as t
from casemate.drivers.store.prepared import Prepared
from casemate.drivers.store.registry import millis, rfc3339

_KEPT = timedelta(hours=24)


_C = t.leases.c  # made once: it is asked at every request
_LIVE = Prepared(
    select(_C.id).where(
        _C.ended.is_(None),
        _C.expires > bindparam("n"),
        _C.id == bindparam("l"),
        _C.app_id == bindparam("a"),
        _C.holder == bindparam("h"),
    )
)
_LIMIT = Prepared(select(t.app_limits.c.max_holders).where(t.app_limits.c.app_id == bindparam("a")))


class Seen(NamedTuple):
    """What an app has: its bound on holders, how many live ones there are, whether the lease asked for is one."""

    limit: int | None
    held: int
    renews: bool


def seen(tx: Connection, app_id: str, lease: str, now: datetime) -> Seen:
    """The leases of an app as one that attests finds them; the holders are counted only where there is a bound."""
    bound = limit(tx, app_id)
    renews = (
        bool(lease) and tx.execute(select(t.leases.c.id).where(*_live(now), _is(app_id, lease))).first() is not None
    )
    return Seen(bound, held(tx, app_id, now) if bound is not None else 0, renews)


def held(tx: Connection, app_id: str, now: datetime) -> int:
    """How many live leases an app has."""
    query = select(func.count()).select_from(t.leases).where(t.leases.c.app_id == app_id, *_live(now))
    return int(tx.execute(query).scalar_one())


def renew(tx: Connection, app_id: str, lease: str, values: dict[str, Any], now: datetime) -> bool:
    """Renew a live lease; False when it is no longer one."""
    chosen = update(t.leases).where(*_live(now), _is(app_id, lease))
    return tx.execute(chosen.values(**values)).rowcount == 1


def is_live(tx: Connection, app_id: str, lease: str, holder: str, now: datetime) -> bool:
    """Whether the lease is one of this app's, now of the key `holder`, that neither expired nor was ended."""
    return _LIVE.one(tx, n=millis(now), a=app_id, l=lease, h=holder) is not None


def end(tx: Connection, now: datetime, why: str, **chosen: str | None) -> int:
    """End live leases; how many. `chosen`: `lease`, `app_id`, `manifest_digest`, `tee`, `tenant`, `holder`."""
    c = t.leases.c
    columns = {"lease": c.id, "app_id": c.app_id, "manifest_digest": c.manifest_digest, "tee": c.tee}
    columns["holder"] = c.holder
    wanted = [columns[name] == value for name, value in chosen.items() if name in columns and value is not None]
    if chosen.get("tenant") is not None:
        own = select(tables.apps.c.app_id).where(tables.apps.c.tenant == chosen["tenant"])
        wanted.append(c.app_id.in_(own))
    return tx.execute(update(t.leases).where(*_live(now), *wanted).values(ended=millis(now), why=why[:64])).rowcount


def listing(
    tx: Connection, now: datetime, *, app_id: str | None, tenant: str | None, limit: int
) -> list[dict[str, Any]]:
    """The newest leases, live ones and those that ended within a day."""
    c = t.leases.c
    query = select(t.leases).order_by(c.begun.desc(), c.id).limit(limit)
    if app_id is not None:
        query = query.where(c.app_id == app_id)
    if tenant is not None:
        query = query.where(c.app_id.in_(select(tables.apps.c.app_id).where(tables.apps.c.tenant == tenant)))
    return [_told(row, millis(now)) for row in tx.execute(query)]


def limit(tx: Connection, app_id: str) -> int | None:
    """How many holders an app allows at a time; None for any number."""
    row = _LIMIT.one(tx, a=app_id)
    return None if row is None else int(row[0])


def set_limit(tx: Connection, app_id: str, most: int | None) -> None:
    """Set or (None) lift the bound on an app's holders."""
    tx.execute(delete(t.app_limits).where(t.app_limits.c.app_id == app_id))
    if most is not None:
        tx.execute(t.app_limits.insert().values(app_id=app_id, max_holders=most))


def any_old(tx: Connection, now: datetime) -> bool:
    """Whether `forget` would find something."""
    return tx.execute(select(t.leases.c.id).where(_old(now)).limit(1)).first() is not None


def forget(tx: Connection, now: datetime) -> int:
    """Forget leases that expired a day ago; how many."""
    return tx.execute(delete(t.leases).where(_old(now))).rowcount


def _old(now: datetime) -> Any:
    return t.leases.c.expires < millis(now - _KEPT)


def _live(now: datetime) -> Iterable[Any]:
    return t.leases.c.ended.is_(None), t.leases.c.expires > millis(now)


def _is(app_id: str, lease: str) -> Any:
    return and_(t.leases.c.id == lease, t.leases.c.app_id == app_id)


def _told(row: Any, now: int) -> dict[str, Any]:
    state = "ended" if row.ended is not None else "live" if row.expires > now else "expired"
    return {
        "lease": row.id,
        "app": row.app_id,
        "manifest_digest": row.manifest_digest,
        "tee": row.tee,
        "key": row.holder,
        "state": state,
        "begun": rfc3339(row.begun),
        "renewed": rfc3339(row.renewed),
        "expires": rfc3339(row.expires),
        "ended": rfc3339(row.ended) if row.ended is not None else None,
        "why": row.why,
    }
