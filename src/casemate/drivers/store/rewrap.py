"""Sealed values in the store, whichever table they lie in: found by the head that names their master key.

Every column `sealed` may hold values of the vault; those that do not begin like one are left alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, LargeBinary, Table, and_, func, select, tuple_, update

from casemate.drivers.store.tables import metadata

HEAD = 12


class Sealed(NamedTuple):
    """One value: its table, its primary key, its bytes, and the label that values of the first format were bound to."""

    table: str
    key: tuple[Any, ...]
    sealed: bytes
    label: str


def tables() -> list[Table]:
    """Tables with sealed values, in a fixed order."""
    return [table for _, table in sorted(metadata.tables.items()) if "sealed" in table.c]


def batch(tx: Connection, heads: Sequence[bytes], after: Sequence[Any], limit: int) -> list[Sealed]:
    """The next values with one of these heads; `after` is [] or [table, key…] of the last one that was seen."""
    found: list[Sealed] = []
    for table in tables():
        if after and table.name < str(after[0]):
            continue
        key = list(table.primary_key.columns)
        query = select(*key, table.c.sealed).where(_head(table).in_(heads)).order_by(*key).limit(limit - len(found))
        if after and table.name == after[0]:
            query = query.where(tuple_(*key) > tuple_(*after[1:]))
        for row in tx.execute(query):
            found.append(Sealed(table.name, tuple(row[:-1]), bytes(row[-1]), _label(table.name, tuple(row[:-1]))))
        if len(found) >= limit:
            break
    return found


def replace(tx: Connection, changes: Iterable[tuple[Sealed, bytes]]) -> int:
    """Put values in place of those that were read, where nobody changed them meanwhile; how many."""
    done = 0
    for was, fresh in changes:
        table = metadata.tables[was.table]
        names = zip(table.primary_key.columns, was.key, strict=True)
        there = and_(*(column == value for column, value in names), table.c.sealed == was.sealed)
        done += tx.execute(update(table).where(there).values(sealed=fresh)).rowcount
    return done


def counts(tx: Connection, magics: Sequence[bytes]) -> dict[bytes, int]:
    """How many values each head has."""
    found: dict[bytes, int] = {}
    for table in tables():
        head = _head(table).label("head")
        query = select(head, func.count()).where(_head(table, 4).in_(magics)).group_by(head)
        for row in tx.execute(query):
            found[bytes(row[0])] = found.get(bytes(row[0]), 0) + int(row[1])
    return found


def _head(table: Table, size: int = HEAD) -> Any:
    return func.substr(table.c.sealed, 1, size, type_=LargeBinary)


def _label(table: str, key: tuple[Any, ...]) -> str:
    if table == "resource_versions":
        return f"resource:{key[0]}:{key[1]}"
    return f"key:{key[0]}" if table == "keys" else ""
