"""Group commit: many callers share a transaction, each gets its own outcome, and nothing waits for ever."""

import threading
import time

import pytest
from sqlalchemy import exc, insert, select

from casemate.drivers.store import Store, tables
from casemate.drivers.store import writer as writers
from casemate.drivers.store.writer import Writer
from casemate.errors import Unavailable


@pytest.fixture
def store(tmp_path):
    made = Store(f"sqlite:///{tmp_path / 's.db'}")
    made.migrate()
    yield made
    made.close()


def names(store):
    with store.read() as tx:
        return set(tx.execute(select(tables.keys.c.name)).scalars())


def add(tx, name):
    tx.execute(insert(tables.keys).values(name=name, sealed=b"", created=1))


class Recorder:
    """A commit that writes names, and notes its batches; `bad` fails alone, `worse` fails the transaction."""

    def __init__(self):
        self.batches = []

    def __call__(self, tx, batch):
        self.batches.append([work.what for work in batch])
        for work in batch:
            if work.what.startswith("bad"):
                work.error = KeyError(work.what)
            elif work.what.startswith("worse"):
                raise ValueError(work.what)
            else:
                add(tx, work.what)


def together(act, arguments):
    """Call `act` with each argument at the same time; the errors by argument."""
    errors = {}

    def call(argument):
        try:
            act(argument)
        except Exception as error:
            errors[argument] = error

    threads = [threading.Thread(target=call, args=(a,)) for a in arguments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return errors


@pytest.fixture
def held(store):
    """A writer that is held up, so that callers gather; let go by `held.set()`."""
    gate = threading.Event()
    recorder = Recorder()

    def commit(tx, batch):
        writer.taken = max(writer.taken, len(batch))
        gate.wait(10)
        recorder(tx, batch)

    writer = Writer(store, commit)
    writer.gate, writer.recorder, writer.taken = gate, recorder, 0
    yield writer
    gate.set()
    writer.close()


def gathered(writer, arguments):
    outcome = {}
    thread = threading.Thread(target=lambda: outcome.update(together(writer.submit, arguments)))
    thread.start()
    deadline = time.monotonic() + 5
    while len(writer._waiting) + writer.taken < len(arguments) and time.monotonic() < deadline:
        time.sleep(0.005)
    writer.gate.set()
    thread.join(30)
    return outcome


def test_callers_share_a_transaction(store, held):
    wanted = {f"n{i}" for i in range(20)}
    assert gathered(held, sorted(wanted)) == {}
    assert names(store) >= wanted
    assert len(held.recorder.batches) <= 3


def test_an_error_is_that_callers_alone(store, held):
    errors = gathered(held, ["a", "b", "bad1", "c", "bad2"])
    assert {name: type(error) for name, error in errors.items()} == {"bad1": KeyError, "bad2": KeyError}
    assert names(store) >= {"a", "b", "c"}


def test_a_batch_that_fails_is_done_again_one_by_one(store, held):
    errors = gathered(held, ["a", "worse", "b", "c", "bad"])
    assert {name: str(error) for name, error in errors.items()} == {"worse": "worse", "bad": "'bad'"}
    assert names(store) >= {"a", "b", "c"}


def test_a_row_that_is_there_fails_its_own_request(store, held):
    with store.write() as tx:
        add(tx, "there")
    errors = gathered(held, ["a", "there", "b"])
    assert {name: type(error) for name, error in errors.items()} == {"there": exc.IntegrityError}
    assert names(store) >= {"a", "b"}


def test_a_store_that_is_away_is_told_to_all(store, held, monkeypatch):
    def away():
        raise Unavailable("away")

    monkeypatch.setattr(store, "write", away)
    errors = together(held.submit, ["a", "b", "c"])
    held.gate.set()
    assert {name: str(error) for name, error in errors.items()} == dict.fromkeys("abc", "away")
    monkeypatch.undo()
    held.submit("d")
    assert "d" in names(store)


def test_a_full_queue_is_said_and_nothing_is_recorded(store, held, monkeypatch):
    monkeypatch.setattr(writers, "WAITING", 2)
    monkeypatch.setattr(writers, "PATIENCE", 0.05)
    results = {}

    def call(name):
        try:
            held.submit(name)
            results[name] = "done"
        except Unavailable as error:
            results[name] = str(error)

    threads = [threading.Thread(target=call, args=(f"n{i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    held.gate.set()
    for thread in threads:
        thread.join(20)
    refused = {name for name, told in results.items() if "more to write" in told}
    assert len(results) == 8
    assert refused
    assert names(store) & set(results) == set(results) - refused


def test_closing_writes_what_waits_and_then_refuses(store):
    recorder = Recorder()
    writer = Writer(store, recorder)
    assert together(writer.submit, [f"n{i}" for i in range(10)]) == {}
    writer.close()
    with pytest.raises(Unavailable):
        writer.submit("late")
    writer.close()
    assert "late" not in names(store)
    assert len(names(store)) == 10


def test_a_writer_that_never_wrote_closes(store):
    Writer(store, Recorder()).close()


def test_the_tick_says_when_it_wants_to_be_called_again(store):
    calls, fired = [], threading.Event()

    def tick():
        calls.append(1)
        if len(calls) == 3:
            fired.set()
            raise RuntimeError  # the thread goes on all the same
        return 0.01

    writer = Writer(store, Recorder(), tick)
    writer.wake()
    assert fired.wait(10)
    writer.submit("after")
    assert "after" in names(store)
    writer.close()
