"""Everything that a store holds, as plain messages that any database of ours can be filled from.

A dump is of one moment: SQLite and PostgreSQL both show a transaction one snapshot. Its messages are
``[TABLE, name, columns]`` and behind it ``[ROWS, rows]`` as often as needed, in an order in which foreign keys hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import Boolean, Connection, MetaData, Table, func, insert, select

from casemate.drivers.store.engine import Store
from casemate.errors import Malformed, Refused

TABLE, ROWS = "table", "rows"
_VERSIONS = "alembic_version"
_BATCH, _AIM = 500, 1 << 20

Message = list[Any]


def revision(tx: Connection) -> str:
    """The revision of the schema."""
    return str(tx.exec_driver_sql(f"SELECT version_num FROM {_VERSIONS}").scalar_one())  # noqa: S608 - a constant


def messages(tx: Connection) -> Iterator[Message]:
    """The content, inside a transaction of `Store.snapshot`; about 1 MiB at a time."""
    for table in _tables(tx):
        yield [TABLE, str(table.name), [str(column.name) for column in table.columns]]
        order = list(table.primary_key.columns)
        found = tx.execution_options(yield_per=_BATCH).execute(select(table).order_by(*order))
        rows: list[list[Any]] = []
        size = 0
        for row in found:
            rows.append([bytes(value) if isinstance(value, memoryview) else value for value in row])
            size += sum(len(value) if isinstance(value, bytes | str) else 8 for value in row)
            if size >= _AIM:
                yield [ROWS, rows]
                rows, size = [], 0
        if rows:
            yield [ROWS, rows]


def load(store: Store, schema: str, said: Iterable[Message]) -> dict[str, int]:
    """Fill an empty store and bring it to the newest schema, all or nothing; returns rows by table.

    `Refused` when the store holds something, `Malformed` when the messages are none of ours.
    """
    with store.write() as tx:
        store.upgrade(tx, schema)
        tables = _tables(tx)
        _demand_empty(tx, tables)
        filling = _Filling(tx, {table.name: table for table in tables})
        for message in said:
            filling.take(message)
        _sequences(tx, tables)
        store.upgrade(tx)
    return filling.counts


class _Filling:
    """Takes messages in their order."""

    def __init__(self, tx: Connection, tables: dict[str, Table]) -> None:
        self._tx, self._tables = tx, tables
        self._table: Table | None = None
        self._columns: list[str] = []
        self.counts: dict[str, int] = {}

    def take(self, message: Message) -> None:
        """One message; `Malformed` when it is none of ours."""
        match message:
            case ["table", str(name), list(columns)] if name in self._tables and name not in self.counts:
                if not set(columns) <= {column.name for column in self._tables[name].columns}:
                    raise Malformed(f"backup: columns of {name} that its schema does not have")
                self._table, self._columns, self.counts[name] = self._tables[name], columns, 0
            case ["rows", list(rows)] if self._table is not None and all(_is_row(row, self._columns) for row in rows):
                made = [dict(zip(self._columns, row, strict=True)) for row in rows]
                self._tx.execute(insert(self._table), [_typed(self._table, row) for row in made])
                self.counts[self._table.name] += len(rows)
            case _:
                raise Malformed("backup: a message that is none of ours")


def _is_row(row: Any, columns: list[str]) -> bool:
    return isinstance(row, list) and len(row) == len(columns)


def _typed(table: Table, row: dict[str, Any]) -> dict[str, Any]:
    """SQLite keeps a truth value as a number, which PostgreSQL doesn't take for one."""
    truths = {column.name for column in table.columns if isinstance(column.type, Boolean)}
    return {name: bool(value) if name in truths and value is not None else value for name, value in row.items()}


def _tables(tx: Connection) -> list[Table]:
    """The tables as the database has them, whatever its schema's revision, those that others refer to first."""
    found = MetaData()
    found.reflect(bind=tx)
    return [table for table in found.sorted_tables if table.name != _VERSIONS]


def _demand_empty(tx: Connection, tables: list[Table]) -> None:
    full = [table.name for table in tables if tx.execute(select(func.count()).select_from(table)).scalar_one()]
    if full:
        raise Refused.because(
            "restore.empty",
            expected="an empty store",
            found=f"rows in {', '.join(sorted(full))}",
            hint="give the old store another name, or name another one with `store` in broker.toml",
        )


def _sequences(tx: Connection, tables: list[Table]) -> None:
    """PostgreSQL counts up on its own: behind the rows that are there now."""
    if tx.dialect.name != "postgresql":
        return
    for table in tables:
        for column in table.primary_key.columns:
            name = tx.execute(select(func.pg_get_serial_sequence(table.name, column.name))).scalar()
            top = tx.execute(select(func.max(column))).scalar() if name else None
            if top is not None:
                tx.execute(select(func.setval(name, top)))
