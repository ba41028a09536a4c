"""What PostgreSQL does otherwise than SQLite: locks, timeouts, restarts, values that it can't hold."""

import threading
import time
from datetime import UTC, datetime

import pytest
from sqlalchemy import create_engine, text

from casemate.drivers.store import Store, record
from casemate.drivers.store import tables as t
from casemate.errors import Malformed, Unavailable
from casemate.testing import log as logs
from casemate.testing import postgres, programs

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def server():
    try:
        with postgres.running() as made:
            yield made
    except programs.Missing as reason:
        pytest.skip(str(reason))


@pytest.fixture
def store(server):
    made = Store(server.url)
    made.migrate()
    with made.write() as tx:
        tx.execute(t.spent_nonces.delete())
        tx.execute(t.keys.delete())
    yield made
    made.close()


def names(store):
    with store.read() as tx:
        return set(tx.execute(t.keys.select().with_only_columns(t.keys.c.name)).scalars())


def test_writers_of_all_replicas_take_turns(server, store):
    """Two that change the same rows in opposite order would be a deadlock; here the second one waits."""
    other = Store(server.url)
    with store.write() as tx:
        for name in ("a", "b"):
            record.add_key(tx, name, b"0", NOW)
    errors, inside, most = [], [], []
    begun = threading.Barrier(4)

    def change(mine, order):
        begun.wait()
        try:
            for _ in range(10):
                with mine.write() as tx:
                    inside.append(1)
                    most.append(len(inside))
                    for name in order:
                        tx.execute(t.keys.update().where(t.keys.c.name == name).values(sealed=b"1"))
                        time.sleep(0.001)
                    inside.pop()
        except Exception as error:
            errors.append(error)

    plans = [(store, "ab"), (other, "ba"), (store, "ba"), (other, "ab")]
    threads = [threading.Thread(target=change, args=plan) for plan in plans]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    assert errors == []
    assert max(most) == 1


def test_readers_do_not_wait_for_a_writer(store):
    with store.write() as tx:
        record.add_key(tx, "unseen", b"0", NOW)
        assert "unseen" not in names(store)
    assert "unseen" in names(store)


def test_a_connection_acknowledges_what_is_on_disk_and_waits_for_nobody_for_ever(store):
    with store.read() as tx:
        told = {
            name: tx.exec_driver_sql(f"SHOW {name}").scalar()
            for name in ("synchronous_commit", "idle_in_transaction_session_timeout", "lock_timeout")
        }
    assert told == {"synchronous_commit": "on", "idle_in_transaction_session_timeout": "1min", "lock_timeout": "30s"}


def test_a_server_that_commits_late_is_told_not_to(server):
    late = server.url + "&options=-csynchronous_commit%3Doff"
    plain, store = create_engine(late), Store(late)
    with plain.connect() as tx:
        assert tx.exec_driver_sql("SHOW synchronous_commit").scalar() == "off"
    with store.read() as tx:
        assert tx.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"
    plain.dispose()
    store.close()


def test_after_a_restart_of_the_server_every_connection_works(server, store):
    def busy():
        try:
            with store.read() as tx:
                ready.wait()
                done.wait()
                tx.execute(text("SELECT 1"))
        except Unavailable:
            broken.append(1)

    ready, done, broken = threading.Barrier(6), threading.Event(), []
    threads = [threading.Thread(target=busy) for _ in range(5)]
    for thread in threads:
        thread.start()
    ready.wait()
    server.stop("immediate")
    with pytest.raises(Unavailable):
        names(store)
    server.start()
    done.set()
    for thread in threads:
        thread.join()
    assert len(broken) == 5
    for _ in range(8):
        assert names(store) == set()


def test_a_write_that_the_server_did_not_survive_is_not_acknowledged(server, store):
    def write():
        with store.write() as tx:
            record.add_key(tx, "lost", b"0", NOW)
            server.kill()

    with pytest.raises(Unavailable):
        write()
    server.start()
    assert "lost" not in names(store)


def test_one_callers_bad_value_is_nobody_elses(server, store):
    """A NUL, or a text that is too long, fails its own decision; the others of its batch are recorded."""
    outcomes = {}
    with logs.opened(server.url) as log:

        def decide(i):
            bad = {0: {"act": "nul\0"}, 1: {"act": "long" * 100}}.get(i, {})
            try:
                log.decide(logs.nonce(), **bad)
                outcomes[i] = "recorded"
            except Exception as error:
                outcomes[i] = type(error)

        threads = [threading.Thread(target=decide, args=(i,)) for i in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert outcomes == {**dict.fromkeys(range(12), "recorded"), 0: Malformed, 1: Malformed}
    with pytest.raises(Malformed), store.write() as tx:
        record.add_key(tx, "x" * 65, b"0", NOW)
