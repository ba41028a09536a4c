"""Turns to write: in order between processes, given back by the kernel, and no more than a courtesy."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from sqlalchemy import text

from casemate.drivers.store import Store, engine
from casemate.drivers.store.turn import Turn
from casemate.errors import Unavailable

HOLDER = """
import sys, time
from pathlib import Path
from casemate.drivers.store.turn import Turn
with Turn(Path(sys.argv[1])).taken():
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def database(tmp_path):
    return tmp_path / "s.db"


@pytest.fixture
def store(database):
    made = Store(f"sqlite:///{database}")
    made.migrate()
    yield made
    made.close()


def holder(database):
    child = subprocess.Popen([sys.executable, "-c", HOLDER, str(database)], stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"held\n"
    return child


def waits(turn):
    """A thread that takes a turn; the event says that it has it."""
    had = threading.Event()

    def take():
        with turn.taken():
            had.set()

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    return thread, had


def test_the_kernel_gives_back_what_a_killed_process_had(database):
    child = holder(database)
    thread, had = waits(Turn(database))
    assert not had.wait(0.2)
    child.send_signal(signal.SIGKILL)
    child.wait(10)
    assert had.wait(10)
    thread.join(10)
    assert (database.parent / "s.db-turn").stat().st_mode & 0o777 == 0o600


def test_who_just_wrote_does_not_come_before_one_who_waits(database):
    ours, theirs = Turn(database), Turn(database)
    order = []

    def again():
        for _ in range(50):
            with ours.taken():
                order.append("ours")

    def once():
        with theirs.taken():
            order.append("theirs")

    with ours.taken():
        waiting = threading.Thread(target=once)
        waiting.start()
        while "theirs" not in order and not _contended(database):
            pass
    again()
    waiting.join(10)
    assert order.index("theirs") <= 1


def _contended(database):
    """Whether somebody waits: the kernel lists locks that block behind others as `->`."""
    inode = (database.parent / "s.db-turn").stat().st_ino
    with Path("/proc/locks").open(encoding="ascii") as file:
        return any("->" in line and f":{inode} " in line for line in file)


def test_within_a_turn_nothing_is_waited_for(database):
    one, two = Turn(database), Turn(database)
    with one.taken(), one.taken(), two.taken():
        pass
    thread, had = waits(two)
    assert had.wait(10)
    thread.join(10)


@pytest.mark.parametrize("oddity", ["a folder in its place", "a link in its place", "no folder"])
def test_where_there_is_no_lock_writers_go_on(tmp_path, oddity):
    database = tmp_path / ("x/s.db" if oddity == "no folder" else "s.db")
    if "folder in" in oddity:
        (tmp_path / "s.db-turn").mkdir()
    elif "link" in oddity:
        (tmp_path / "s.db-turn").symlink_to(tmp_path / "elsewhere")
    turn = Turn(database)
    for _ in range(2):
        with turn.taken():
            pass
    assert not (tmp_path / "elsewhere").exists()


def test_a_fork_takes_no_turn_along(database):
    turn = Turn(database)
    with turn.taken():
        child = os.fork()
        if child == 0:
            try:
                signal.alarm(20)
                signal.pause()
            finally:
                os._exit(0)
    thread, had = waits(Turn(database))  # though the child lives
    assert had.wait(10)
    thread.join(10)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_a_forked_child_waits_for_its_parent(database):
    turn = Turn(database)
    with turn.taken():
        child = os.fork()
        if child == 0:
            try:
                _, had = waits(turn)
                os._exit(3 if had.wait(0.3) else 0)
            finally:
                os._exit(4)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_writers_of_two_processes_take_turns(store, database):
    child = holder(database)
    done = threading.Event()

    def write():
        with store.write() as tx:
            tx.execute(text("INSERT INTO keys (name, sealed, created) VALUES ('k', x'', 1)"))
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    assert not done.wait(0.2)
    with store.read() as tx:  # readers never wait
        assert tx.execute(text("SELECT count(*) FROM keys")).scalar_one() == 0
    child.kill()
    child.wait(10)
    thread.join(10)
    assert done.is_set()


def test_a_write_within_a_write_is_told_so(database, monkeypatch):
    """As before there were turns: SQLite finds it busy, and nothing waits for itself for ever."""
    monkeypatch.setattr(engine, "BUSY_SECONDS", 0.05)
    store, other = Store(f"sqlite:///{database}"), Store(f"sqlite:///{database}")
    store.migrate()
    for second in (store, other):
        with store.write(), pytest.raises(Unavailable):
            with second.write():
                pass
    with other.write():
        pass
    store.close()
    other.close()


def test_threads_of_a_process_do_not_wait_for_ever(store, monkeypatch):
    monkeypatch.setattr(engine, "TURN_SECONDS", 0.05)
    told = []

    def write():
        try:
            with store.write():
                pass
        except Unavailable as error:
            told.append(str(error))

    with store.write():
        thread = threading.Thread(target=write)
        thread.start()
        thread.join(10)
    assert told == ["the store is being written for too long"]
