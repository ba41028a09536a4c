"""Which shared key follows which, all within a transaction. A kind's first key has the kind's name.

The store has a new generation (`known`) with each change, so that every process knows at once of a revoked key.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, delete, insert, select

from casemate.drivers.store.known import changed
from casemate.drivers.store.registry import millis
from casemate.drivers.store.tables import keys
from casemate.drivers.store.tables_access import signing_keys

_c = signing_keys.c


def begin(tx: Connection, kind: str, now: datetime) -> None:
    """Note a kind's first key, when nothing is noted yet."""
    if not listing(tx, kind):
        tx.execute(insert(signing_keys).values(name=kind, begun=0, created=millis(now)))


def listing(tx: Connection, kind: str) -> list[tuple[str, int]]:
    """Names of a kind's keys and when each begins (milliseconds since 1970), oldest first."""
    query = select(_c.name, _c.begun).where((_c.name == kind) | _c.name.startswith(f"{kind}-", autoescape=True))
    return [(row.name, row.begun) for row in tx.execute(query.order_by(_c.begun))]


def names(tx: Connection) -> frozenset[str]:
    """Names of every kind's keys that are not forgotten."""
    return frozenset(tx.execute(select(_c.name)).scalars())


def add(tx: Connection, name: str, begun: datetime, now: datetime) -> None:
    """Note a new key."""
    changed(tx)
    tx.execute(insert(signing_keys).values(name=name, begun=millis(begun), created=millis(now)))


def forget(tx: Connection, name: str) -> None:
    """Forget a key and its secret."""
    changed(tx)
    tx.execute(delete(signing_keys).where(_c.name == name))
    tx.execute(delete(keys).where(keys.c.name == name))
