"""Questions that are asked at every request, put to the driver itself.

Working out how to ask takes SQLAlchemy ten times as long as SQLite takes to answer. Here that is done once for each
kind of database; the connection, its transaction and the kinds of errors stay SQLAlchemy's. Values arrive as the driver
gives them: SQLite's truth values are numbers, and a reader converts what it needs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import Connection, exc
from sqlalchemy.sql import Select


class _Made(NamedTuple):
    """A statement's text in a dialect; `order` are its parameters where they stand in a row, else None."""

    text: str
    order: tuple[str, ...] | None


class Prepared:
    """A select whose parameters are `bindparam`s: text and whole numbers alone."""

    def __init__(self, query: Select[Any]) -> None:
        self._query = query
        self._made: dict[str, _Made] = {}

    def one(self, tx: Connection, **values: str | int) -> Any:
        """The first row as a tuple, or None."""
        made = self._made.get(tx.dialect.name) or self._make(tx)
        given: Any = values if made.order is None else tuple([values[name] for name in made.order])
        try:
            cursor = tx.connection.cursor()
            try:
                cursor.execute(made.text, given)
                return cursor.fetchone()
            finally:
                cursor.close()
        except tx.dialect.loaded_dbapi.Error as error:
            raise exc.DBAPIError.instance(
                made.text, None, error, tx.dialect.loaded_dbapi.Error, hide_parameters=True, dialect=tx.dialect
            ) from error

    def _make(self, tx: Connection) -> _Made:
        compiled = self._query.compile(dialect=tx.dialect)
        order = tuple(compiled.positiontup) if compiled.positional and compiled.positiontup is not None else None
        self._made[tx.dialect.name] = _Made(str(compiled), order)
        return self._made[tx.dialect.name]
