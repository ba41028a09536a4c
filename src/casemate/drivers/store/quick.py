"""Statements of the log's commits as text, for the driver's own cursor.

SQLAlchemy takes several times as long over a small statement as the database does, and the log's writer has a dozen of
them a commit. Here text is made once a shape, and rows are inserted many at a time: each call to SQLite gives up the
interpreter's lock, and getting it back is what costs beside busy threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Table, exc

ROWS = 32  # a statement, so that few texts are prepared


class Quick:
    """A cursor within a transaction. Values are plain ones, `?` stands for each; errors are SQLAlchemy's."""

    def __init__(self, tx: Connection) -> None:
        self._sqlite = tx.dialect.name == "sqlite"
        self._dialect = tx.dialect
        self._cursor = tx.connection.cursor()

    def run(self, statement: str, *values: Any) -> None:
        """Execute one statement."""
        with self._failures(statement):
            self._cursor.execute(statement if self._sqlite else _pyformat(statement), values)

    def rows(self, statement: str, *values: Any) -> list[Any]:
        """The rows of a query, as tuples."""
        with self._failures(statement):
            self._cursor.execute(statement if self._sqlite else _pyformat(statement), values)
            return list(self._cursor.fetchall())

    def insert(self, table: Table, columns: tuple[str, ...], rows: Sequence[Sequence[Any]]) -> None:
        """Insert rows, each with its values in the order of `columns`."""
        one = _insert(table.name, columns, 1)
        with self._failures(one):
            if not self._sqlite:
                self._cursor.executemany(_pyformat(one), rows)
                return
            for start in range(0, len(rows), ROWS):
                some = rows[start : start + ROWS]
                self._cursor.execute(_insert(table.name, columns, len(some)), [v for row in some for v in row])

    @contextmanager
    def _failures(self, statement: str) -> Iterator[None]:
        driver = self._dialect.loaded_dbapi
        try:
            yield
        except driver.Error as error:
            raise exc.DBAPIError.instance(
                statement, None, error, driver.Error, hide_parameters=True, dialect=self._dialect
            ) from error


def among(count: int) -> str:
    """`(?, ?, ...)` for so many values."""
    return f"({', '.join('?' * count)})"


@lru_cache(maxsize=1024)
def _insert(table: str, columns: tuple[str, ...], count: int) -> str:
    names = ", ".join(f'"{name}"' for name in columns)
    return f'INSERT INTO "{table}" ({names}) VALUES {", ".join([among(len(columns))] * count)}'  # noqa: S608 - our own names


@lru_cache(maxsize=1024)
def _pyformat(statement: str) -> str:
    return statement.replace("?", "%s")
