"""Read transactions on SQLite without a connection pool's work for each: begin, ask, end, put to the driver itself.

The connection stays SQLAlchemy's, so that whoever is given it may also `execute`: it finds that a transaction is under
way (`engine`) and goes along. A few connections are kept open between transactions; one that failed goes back.
"""

from __future__ import annotations

import os
import sqlite3
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from sqlalchemy import Connection, Engine, exc

KEPT = 8  # of the pool's connections


class Readers:
    """Safe for threads. A process that was forked off has connections of its own."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._idle: deque[Connection] = deque()
        self._process = os.getpid()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A connection in a read transaction, which sees one moment from its first question on."""
        connection = self._taken()
        try:
            raw: Any = connection.connection.driver_connection
            raw.execute("BEGIN")
            try:
                yield connection
            finally:
                if connection.in_transaction():
                    connection.commit()
                elif raw.in_transaction:
                    raw.execute("COMMIT")
        except sqlite3.Error as error:
            connection.close()
            raise exc.OperationalError("a transaction for reading", None, error, hide_parameters=True) from error
        except exc.SQLAlchemyError:
            connection.close()
            raise
        except BaseException:
            self._put_back(connection)
            raise
        self._put_back(connection)

    def close(self) -> None:
        """Give every connection back to its pool."""
        with suppress(IndexError):
            while True:
                self._idle.pop().close()

    def _taken(self) -> Connection:
        if self._process != os.getpid():
            self._idle, self._process = deque(), os.getpid()
        try:
            return self._idle.pop()
        except IndexError:
            return self._engine.connect()

    def _put_back(self, connection: Connection) -> None:
        if len(self._idle) < KEPT and not connection.invalidated:
            self._idle.append(connection)
        else:
            connection.close()
