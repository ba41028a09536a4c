"""What changes seldom and is asked at every request, remembered until it changes: apps, releases, policies, trust.

Rules
1. Whoever writes such a row (`registry`, `policies`) calls `changed` in the same transaction: the store has a new
   generation when that transaction is committed, and not before.
2. `Known.at` reads the generation in the transaction of whoever asks; what was remembered under another one is
   forgotten. So an answer is never older than the transaction that it is used in, whoever wrote, in whatever process.
3. Generations are random: a store that was restored from a backup does not come back to one that was seen.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from sqlalchemy import Connection, bindparam, insert, select, update

from casemate.drivers.store.prepared import Prepared
from casemate.drivers.store.tables import generation as table

ROW = 1
MOST = 4096
_CURRENT = Prepared(select(table.c.value).where(table.c.id == bindparam("i")))

T = TypeVar("T")


def changed(tx: Connection) -> None:
    """Give the store a new generation when this transaction is committed."""
    value = os.urandom(16).hex()
    if tx.execute(update(table).where(table.c.id == ROW).values(value=value)).rowcount == 0:
        tx.execute(insert(table).values(id=ROW, value=value))


class View:
    """What is known in one transaction."""

    def __init__(self, held: dict[Hashable, Any]) -> None:
        self._held = held

    def get(self, key: Hashable, read: Callable[[], T]) -> T:
        """What is remembered under `key`, else what `read` finds in the same transaction. Nobody may change it."""
        if key in self._held:
            found: T = self._held[key]
            return found
        found = read()
        if len(self._held) >= MOST:  # strangers may ask for any app: then it begins anew
            self._held.clear()
        self._held[key] = found
        return found


class Known:
    """What one process remembers of its store. Safe for threads."""

    def __init__(self) -> None:
        self._at: tuple[str | None, dict[Hashable, Any]] = ("", {})

    def at(self, tx: Connection) -> View:
        """What is remembered of the generation that this transaction sees; read it before anything else."""
        row = _CURRENT.one(tx, i=ROW)
        value = None if row is None else row[0]
        was, held = self._at
        if was != value:
            held = {}
            self._at = (value, held)
        return View(held)
