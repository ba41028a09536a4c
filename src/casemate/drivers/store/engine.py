"""Engine and transactions: SQLite with WAL and synchronous=FULL, or PostgreSQL by URL.

Rules
1. What a transaction of `write` returned from is on disk: an acknowledged write survives kill -9.
2. A write transaction takes the write lock at its start (SQLite: its turn, `turn.py`, then BEGIN IMMEDIATE; PostgreSQL:
   an advisory lock that all replicas share), so that it never fails half-way as busy, as a deadlock or for what another
   one wrote meanwhile.
3. Failures of the database are `Unavailable`; they never carry values of a row. A value that a database can't hold is
   `Malformed`: it is the caller's, and no reason to refuse others.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, create_engine, event, exc, make_url

from casemate.drivers.store.known import Known
from casemate.drivers.store.readers import Readers
from casemate.drivers.store.turn import Turn
from casemate.errors import CasemateError, Malformed, Unavailable, Unusable

BUSY_SECONDS = 10
TURN_SECONDS = 30  # as PostgreSQL's lock_timeout below
CONFLICT_ATTEMPTS = 5
_WRITING = "SELECT pg_advisory_xact_lock(7215613)"
# Of every connection: an acknowledged commit is on disk, though the server's default may be another one; and whoever
# vanished in the middle of a transaction (a machine that lost its network) doesn't keep the others waiting for ever.
_SESSION = (
    "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'",
    "SET idle_in_transaction_session_timeout = '60s'",
    "SET lock_timeout = '30s'",
)

T = TypeVar("T")


class AlreadySpent(CasemateError):
    """A nonce was used before."""


class Store:
    """A migrated database. `read` and `write` give a connection inside a transaction to the functions beside this."""

    def __init__(self, url: str) -> None:
        self._writer = threading.RLock()
        self._turn: Turn | None = None
        self._head: str | None = None
        self.known = Known()
        shown = "(not a database URL)"
        try:
            self.url = make_url(url)
            shown = self.url.render_as_string(hide_password=True)
            self.sqlite = self.url.get_backend_name() == "sqlite"
            self._engine = create_engine(self.url, hide_parameters=True, **self._options())
            self._readers = Readers(self._engine)
        except (ImportError, exc.ArgumentError) as error:
            raise Unusable(f"the store {shown} cannot be used: {type(error).__name__}") from error
        if self.sqlite:
            if self.url.database and not self.url.database.startswith((":", "file:")):
                self._turn = Turn(Path(self.url.database))
            event.listen(self._engine, "connect", _prepare)
            event.listen(self._engine, "begin", _begin)
        else:
            event.listen(self._engine, "connect", _settle)

    def _options(self) -> dict[str, Any]:
        if self.sqlite:
            return {"connect_args": {"timeout": BUSY_SECONDS}, "pool_size": 16, "max_overflow": 32}
        query = self.url.query
        arguments = (
            {} if "connect_timeout" in query or self.url.get_driver_name() != "psycopg" else {"connect_timeout": 10}
        )
        return {"pool_pre_ping": True, "pool_size": 16, "max_overflow": 16, "connect_args": arguments}

    def migrate(self) -> None:
        """Bring the schema to the newest version; safe to call by several replicas.

        `Unusable` when a newer Casemate has brought it further than this one knows.
        """
        with self.write() as connection:  # replicas that start together: one migrates, the others wait
            self.upgrade(connection)

    def upgrade(self, connection: Connection, revision: str = "head") -> None:
        """Bring the schema to a revision, forwards, in a write transaction that is under way."""
        from alembic import command
        from alembic.config import Config
        from alembic.script import ScriptDirectory

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        config.set_main_option("path_separator", "os")
        scripts = ScriptDirectory.from_config(config)
        known = {script.revision for script in scripts.walk_revisions()}
        present = _revision(connection)
        for asked in (present, revision):
            if asked not in (None, "head", *known):
                raise Unusable(
                    f"the store's schema {asked!r} is newer than this Casemate knows",
                    hint="start the version that made it, or a later one",
                )
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        self._head = scripts.get_current_head()

    def is_current(self) -> bool:
        """Whether the schema is the one that this process brought it to; `Unavailable` when nobody answers."""
        with self.read() as connection:
            found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
        return found is not None and found == self._head

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection for reading."""
        if self.sqlite:
            with self._failures(), self._readers.transaction() as connection:
                yield connection
            return
        with self._failures(), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """A connection for reading much: all that it reads is of one moment, whoever writes meanwhile."""
        options = {} if self.sqlite else {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        with self._failures(), self._engine.connect().execution_options(**options) as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A connection for writing: committed and durable when the block ends, rolled back when it raises."""
        connect = self._engine.connect
        with (
            self._failures(),
            self._in_turn(),
            connect().execution_options(write=True) as connection,
            connection.begin(),
        ):
            if not self.sqlite:
                connection.exec_driver_sql(_WRITING)
            yield connection

    @contextmanager
    def _in_turn(self) -> Iterator[None]:
        """One writer at a time, of all processes: SQLite's own wait polls and can starve. PostgreSQL has a lock."""
        if not self.sqlite:
            yield
            return
        if not self._writer.acquire(timeout=TURN_SECONDS):
            raise Unavailable("the store is being written for too long", hint="see its disk, and who else writes")
        try:
            with self._turn.taken() if self._turn is not None else nullcontext():
                yield
        finally:
            self._writer.release()

    def written(self, act: Callable[[Connection], T]) -> T:
        """`act` in a write transaction, again when another replica's write came between."""
        for _ in range(CONFLICT_ATTEMPTS - 1):
            try:
                with self.write() as connection:
                    return act(connection)
            except exc.IntegrityError:
                continue
        with self.write() as connection:
            return act(connection)

    def close(self) -> None:
        """Close every connection."""
        self._readers.close()
        self._engine.dispose()
        if self._turn is not None:
            self._turn.close()

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except exc.IntegrityError:
            raise
        except exc.DataError as error:
            raise Malformed("a value that the store cannot hold") from error
        except exc.SQLAlchemyError as error:
            name = type(getattr(error, "orig", None) or error).__name__
            raise Unavailable(
                f"the store does not work at the moment ({name})", hint="see its disk or its server"
            ) from error


def _revision(connection: Connection) -> str | None:
    from alembic.migration import MigrationContext

    return MigrationContext.configure(connection).get_current_revision()


def _settle(connection: Any, _: object) -> None:
    connection.autocommit = True
    cursor = connection.cursor()
    for statement in _SESSION:
        cursor.execute(statement)
    cursor.close()
    connection.autocommit = False


def _prepare(connection: Any, _: object) -> None:
    connection.isolation_level = None  # we begin transactions ourselves: Python's sqlite3 begins too late
    _to_wal(connection)
    for pragma in ("synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _to_wal(connection: Any) -> None:
    """Switch to WAL; SQLite does not wait when another process does the same at this moment."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def _begin(connection: Connection) -> None:
    raw: Any = connection.connection.driver_connection
    if not raw.in_transaction:  # as one of `Readers` is
        write = connection.get_execution_options().get("write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
