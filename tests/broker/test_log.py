"""The log on a real store: sequence, proofs, counts, keys; on SQLite and on PostgreSQL."""

import contextlib
import os
import threading
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, exc, text, update

from casemate.broker import journal, receipts
from casemate.broker.refusals import Missing
from casemate.drivers.store import AlreadySpent, Store, record, tables, tables_log
from casemate.drivers.store import log as entries
from casemate.drivers.store.writer import Work
from casemate.errors import Finding, Malformed, Refused, Unavailable, Unusable
from casemate.ledger import entry, merkle, note, receipt, tiles
from casemate.testing import log as logs
from casemate.testing import postgres, programs

NOON = datetime(2026, 11, 21, 12, 0, 30, tzinfo=UTC)


class Clock:
    def __init__(self):
        self.now = NOON

    def __call__(self):
        return self.now


@pytest.fixture(scope="module")
def postgres_url():
    try:
        with postgres.server() as url:
            yield url
    except programs.Missing as reason:
        pytest.skip(str(reason))


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.db'}"
    found = request.getfixturevalue("postgres_url")
    store = Store(found)
    store.migrate()
    with store.write() as tx:
        for table in reversed(tables.metadata.sorted_tables):
            tx.execute(table.delete())
    store.close()
    return found


@pytest.fixture
def log(url):
    with logs.opened(url, clock=Clock()) as made:
        yield made


def checkpoint(log):
    signed, _ = note.open_note(receipts.checkpoint(log), receipts.keys(log).verifiers)
    return note.parse_checkpoint(signed)


def openings(log, number):
    return {name: opening.value for name, opening in receipts.receipt(log, number).openings.items()}


def together(count, act):
    errors = []

    def call(i):
        try:
            act(i)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=call, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return errors


def test_a_new_log_is_empty_and_signed(log):
    assert (checkpoint(log).size, checkpoint(log).root) == (0, merkle.EMPTY)
    assert checkpoint(log).origin.startswith("casemate-log/")


def test_a_decision_has_a_receipt_at_once(log):
    number = log.decide(logs.nonce(), resource="a/b/c", version=2)
    found = receipt.verify(receipts.receipt(log, number), receipts.keys(log))
    assert (found.index, found.size, found.entry.kind) == (0, 1, "attest")
    assert found.fields["resource"] == "a/b/c"
    assert found.fields["id"] == number
    with log.store.read() as tx:
        assert tx.execute(text("SELECT count(*) FROM decisions")).scalar_one() == 1
        assert tx.execute(text("SELECT count(*) FROM spent_nonces")).scalar_one() == 1


def test_many_callers_get_entries_of_their_own(log):
    ids = []
    assert together(16, lambda i: ids.extend(log.decide(logs.nonce(), n=[i, j]) for j in range(12))) == []
    assert checkpoint(log).size == 192
    found = [receipt.verify(receipts.receipt(log, number), receipts.keys(log)) for number in ids]
    assert sorted(f.index for f in found) == list(range(192))


def test_a_nonce_spent_twice_fails_its_own_request(log):
    outcomes = []
    errors = together(8, lambda i: outcomes.append(log.decide("same" if i % 2 else logs.nonce())))
    assert [type(error) for error in errors] == [AlreadySpent] * 3
    assert checkpoint(log).size == len(outcomes) == 5
    with pytest.raises(AlreadySpent):
        log.decide("same")
    assert checkpoint(log).size == 5


def test_one_batch_with_the_same_nonce_twice(log):
    """The pre-check inside the lock, without luck: both stand in one batch."""
    batch, ticket = [], record.Ticket("twice", 1)
    for _ in range(2):
        pending = log.log.pending("attest", NOON, True, {"n": 1})
        batch.append(Work(logs.Decision(record.row(NOON, "attest", [], genuine=True), pending, ticket)))
    with log.store.write() as tx:
        log.log._commit(tx, batch)
    assert [type(work.error) for work in batch] == [type(None), AlreadySpent]
    assert checkpoint(log).size == 1


def test_rows_and_acts_of_others_share_the_transaction(log):
    def decide(name, *, fail=False, rows=()):
        def act(tx):
            tx.execute(tables.keys.insert().values(name=name, sealed=b"", created=1))
            if fail:
                raise Refused.because("lease.live", expected="at most 1", found="2")

        pending = log.log.pending("release", NOON, True, {"n": 1})
        row = record.row(NOON, "release", [], genuine=True)
        log.log.record(logs.Decision(row, pending, None, rows, act))

    before = checkpoint(log).size
    decide("one", rows=[(tables.keys, {"name": "row", "sealed": b"", "created": 1})])
    with pytest.raises(Refused):
        decide("two", fail=True)
    with log.store.read() as tx:
        names = set(tx.execute(text("SELECT name FROM keys")).scalars())
    assert {"one", "row"} <= names
    assert "two" not in names
    assert checkpoint(log).size == before + 1


def test_an_act_of_an_admin_is_in_the_log_or_did_not_happen(log):
    def act(tx, *, fail):
        tx.execute(tables.keys.insert().values(name=f"made{fail}", sealed=b"", created=1))
        journal.admin(log, tx, who="local", act="resource.put", facts={"app": "sha256:" + "a" * 64, "version": 3})
        if fail:
            raise KeyError

    with log.store.write() as tx:
        act(tx, fail=False)
    with pytest.raises(KeyError):
        with log.store.write() as tx:
            act(tx, fail=True)
    assert checkpoint(log).size == 1
    (found,) = receipts.period(log, 0, 1 << 47, app_id="sha256:" + "a" * 64)
    assert found.openings["who"].value == "local"
    assert entry.parse(found.entry).allowed is None
    log.decide(logs.nonce())  # the log goes on after what was rolled back
    assert checkpoint(log).size == 2
    receipt.verify(receipts.receipt(log, found.id), receipts.keys(log))


def test_admins_and_decisions_at_the_same_time(log):
    def act(i):
        if i % 2:
            log.decide(logs.nonce())
            return
        with log.store.write() as tx:
            journal.admin(log, tx, who="local", act="tenant.set", facts={"n": i})

    assert together(20, act) == []
    assert checkpoint(log).size == 20


def test_replicas_take_turns(url):
    with logs.opened(url) as one, logs.opened(url) as two:
        assert together(12, lambda i: [(one if i % 2 else two).decide(logs.nonce()) for _ in range(5)]) == []
        assert checkpoint(one) == checkpoint(two)
        assert checkpoint(one).size == 60
        assert receipts.keys(one) == receipts.keys(two)


def test_replicas_that_begin_together_begin_one_log(url):
    made = []
    assert together(4, lambda _: made.append(logs.bare(url))) == []
    assert len({receipts.keys(one).origin for one in made}) == 1
    for one in made:
        one.close()


def test_refusals_of_strangers_are_one_entry_a_minute(log):
    for _ in range(30):
        log.log.count("attest", ["snp.signature"])
    log.log.count("auth", ["tee.sample"])
    log.decide(logs.nonce())
    assert checkpoint(log).size == 1
    log.clock.now += timedelta(minutes=1)
    log.log.count("attest", ["snp.signature"])
    log.decide(logs.nonce())
    assert checkpoint(log).size == 3
    (found,) = [one for one in receipts.period(log, 0, 1 << 47) if "counts" in one.openings]
    assert entry.parse(found.entry).allowed is False
    assert found.openings["minute"].value == "2026-11-21T12:00:00.000Z"
    assert found.openings["counts"].value == {"attest snp.signature": 30, "auth tee.sample": 1}


def test_counts_survive_a_stop_and_become_an_entry_later(url):
    clock = Clock()
    with logs.opened(url, clock=clock) as one:
        one.log.count("attest", ["a.b"])
    clock.now += timedelta(minutes=5)
    with logs.opened(url, clock=clock) as two:
        two.decide(logs.nonce())
        counts = [r.openings["counts"].value for r in receipts.period(two, 0, 1 << 47) if "counts" in r.openings]
    assert counts == [{"attest a.b": 1}]


def test_a_minute_ends_although_nobody_asks(log):
    log.log.count("attest", ["a.b"])
    log.clock.now += timedelta(minutes=1)
    log.log.count("attest", ["a.b"])
    done = threading.Event()
    for _ in range(200):
        log.log._writer.wake()
        if checkpoint(log).size:
            break
        done.wait(0.02)
    assert checkpoint(log).size == 1


def test_strangers_cannot_make_an_entry_grow(log):
    for i in range(2000):
        log.log.count("attest", [f"rule.{i}"])
    log.clock.now += timedelta(minutes=1)
    log.decide(logs.nonce())
    (summary,) = [one for one in receipts.period(log, 0, 1 << 47) if "counts" in one.openings]
    assert len(summary.openings["counts"].value) <= 257
    assert sum(summary.openings["counts"].value.values()) == 2000


def test_the_log_key_changes_and_old_receipts_stay_good(url):
    clock = Clock()
    with logs.opened(url, clock=clock) as one, logs.opened(url, clock=clock) as two:
        number = one.decide(logs.nonce())
        old, known = receipts.receipt(one, number), receipts.keys(one)
        two.decide(logs.nonce())
        clock.now += timedelta(seconds=5)
        made = journal.change_log_key(one, who="local")
        clock.now += timedelta(seconds=5)
        later = two.decide(logs.nonce())  # the other replica learns of the key from the store
        history = receipts.keys(two)
        assert [key.ended is None for key in history.keys] == [False, True]
        assert history.keys[1].verifier.text() == made
        receipt.verify(old, history)
        receipt.verify(receipts.receipt(two, later), history)
        receipt.verify(receipts.receipt(two, number), history)
        with pytest.raises(Refused):
            receipt.verify(receipts.receipt(two, later), known)


def test_openings_are_sealed_and_bound_to_their_id(log):
    one, two = log.decide(logs.nonce(), resource="web/very-secret-name/1"), log.decide(logs.nonce())
    c = tables_log.log_openings.c
    with log.store.write() as tx:
        rows = list(tx.execute(tables_log.log_openings.select()))
        assert all(b"very-secret" not in bytes(row.sealed) for row in rows)
        assert all(b"very-secret" not in bytes(row.entry) for row in tx.execute(tables_log.log_entries.select()))
        other = next(bytes(row.sealed) for row in rows if row.id == two)
        tx.execute(update(tables_log.log_openings).where(c.id == one).values(sealed=other))
    with pytest.raises(Malformed):
        receipts.receipt(log, one)


def test_periods_are_read_in_pages_and_by_tenant(log):
    ids = [log.decide(logs.nonce(), n=i) for i in range(5)]
    log.clock.now += timedelta(days=1)
    ids.append(log.decide(logs.nonce(), n=5))
    day = entries.millis(NOON)
    assert [r.id for r in receipts.period(log, day, day + 1)] == ids[:5]
    assert [r.id for r in receipts.period(log, 0, 1 << 47, after=1, limit=2)] == ids[2:4]
    assert receipts.period(log, 0, 1 << 47, tenant="nobody") == []
    for wrong in ({"limit": 0}, {"limit": 5000}, {"after": -2}):
        with pytest.raises(Malformed):
            receipts.period(log, 0, 1, **wrong)


def test_what_is_not_there(log):
    log.decide(logs.nonce())
    for number in ("0" * 32, "x", "", "0" * 33, "\ud800"):
        with pytest.raises(Missing):
            receipts.receipt(log, number)
    for level, number, width in ((0, 0, 2), (0, 1, 1), (1, 0, 1), (None, 0, 2)):
        with pytest.raises(Missing):
            receipts.tile(log, level, number, width)
    assert len(receipts.tile(log, 0, 0, 1)) == 32
    assert tiles.unbundle(receipts.tile(log, None, 0, 1))


def test_a_log_that_was_cut_does_not_start(url):
    with logs.opened(url) as log:
        for _ in range(3):
            log.decide(logs.nonce())
        with log.store.write() as tx:
            tx.execute(delete(tables_log.log_entries).where(tables_log.log_entries.c.number == 2))
    with pytest.raises(Unusable, match="damaged"):
        logs.bare(url)


@pytest.mark.parametrize("column", ["size", "peaks", "checkpoint"])
def test_a_state_that_was_changed_does_not_start(url, column):
    with logs.opened(url) as log:
        for _ in range(3):
            log.decide(logs.nonce())
        now = receipts.checkpoint(log)
        changed = {"size": 2, "peaks": os.urandom(64), "checkpoint": now.replace("\n3\n", "\n4\n")}[column]
        with log.store.write() as tx:
            tx.execute(update(tables_log.log_state).values({column: changed}))
    with pytest.raises(Unusable, match="damaged"):
        logs.bare(url)


def test_a_store_that_went_back_does_not_extend_what_was_seen(log):
    log.decide(logs.nonce())
    first = checkpoint(log)
    log.decide(logs.nonce())
    seen = checkpoint(log)
    assert receipts.extends(log, first)
    assert receipts.extends(log, seen)
    assert not receipts.extends(log, note.Checkpoint(seen.origin, 3, seen.root))
    assert not receipts.extends(log, note.Checkpoint(seen.origin, 2, first.root))
    assert not receipts.extends(log, note.Checkpoint("another", 1, first.root))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 300), min_size=1, max_size=6))
def test_any_sequence_of_batches_is_provable_and_consistent(tmp_path, sizes):
    folder = tmp_path / os.urandom(8).hex()
    folder.mkdir()
    with logs.opened(f"sqlite:///{folder}/s.db", clock=Clock()) as log:
        seen, made = [checkpoint(log)], []
        for size in sizes:
            pending = [log.log.pending("attest", NOON, True, {"n": len(made) + i}) for i in range(size)]
            with log.store.write() as tx:
                entries.append(tx, entries.lock(tx), pending, log.log.sign, NOON)
            made += pending
            seen.append(checkpoint(log))
        with log.store.read() as tx:
            node = tiles.nodes(entries.reader(tx))
            for number in {0, len(made) - 1, len(made) // 2, len(made) // 3}:
                found = receipts.receipt(log, made[number].id)
                assert receipt.verify(found, receipts.keys(log)).index == number
            leaves = [merkle.leaf(one.entry) for one in made]
            for number, leaf in enumerate(leaves):
                for last in seen[-2:]:
                    if number < last.size:
                        proof = merkle.inclusion(number, last.size, node)
                        assert merkle.verify_inclusion(leaf, number, last.size, proof, last.root)
            for i, old in enumerate(seen):
                assert receipts.extends(log, old)
                for new in seen[i:]:
                    proof = merkle.consistency(old.size, new.size, node)
                    assert merkle.verify_consistency(old.size, new.size, proof, old.root, new.root)
            assert entries.length(tx) == len(made) == seen[-1].size


def test_findings_of_any_text_fit_into_an_entry(log):
    odd = Finding("a.b", "\x00\u00e9" * 5000, "\ud800|\U0001f600" * 5000)
    told = journal._failed((odd,) * 100)
    pending = log.log.pending("attest", NOON, False, {"failed": told, "passed": ["x.y"] * 64})
    assert len(pending.entry) < 1000
    assert log.log.opened(pending.id, pending.sealed)[1]["failed"] == told


@pytest.fixture(params=["append", "commit"])
def failing(request, log, monkeypatch):
    """Makes every transaction fail, at its last step or at its commit, until called with False."""
    dialect, fails = log.store._engine.dialect, [False]
    where, name = (entries, "append") if request.param == "append" else (dialect, "do_commit")
    real = getattr(where, name)

    def act(*args, **options):
        if fails[0]:
            error = dialect.loaded_dbapi.OperationalError("disk full")
            raise error if name == "do_commit" else exc.OperationalError("x", None, error)
        return real(*args, **options)

    monkeypatch.setattr(where, name, act)
    return lambda on: fails.__setitem__(0, on)


def counts_told(log):
    log.decide(logs.nonce())
    return [one.openings["counts"].value for one in receipts.period(log, 0, 1 << 47) if "counts" in one.openings]


def test_a_transaction_that_fails_loses_no_counts(log, failing):
    for _ in range(7):
        log.log.count("auth", ["session.version"])
    failing(True)
    for _ in range(2):
        with pytest.raises(Unavailable):
            log.decide(logs.nonce())
    log.log.count("auth", ["session.version"])
    failing(False)
    log.decide(logs.nonce())
    log.clock.now += timedelta(minutes=1)
    assert counts_told(log) == [{"auth session.version": 8}]


def test_a_minute_whose_entry_failed_is_told_later(log, failing):
    log.log.count("auth", ["a.b"])
    log.decide(logs.nonce())
    log.clock.now += timedelta(minutes=2)
    failing(True)
    with pytest.raises(Unavailable):
        log.decide(logs.nonce())
    failing(False)
    assert counts_told(log) == [{"auth a.b": 1}]  # within the same minute
    assert log.log._tick() is None


def test_decisions_written_one_by_one_count_once(log, monkeypatch):
    """A batch that fails for one of its own is done again one by one; its counts stand once."""
    log.log.count("auth", ["a.b"])
    real = entries.append

    def bad(tx, state, pendings, *more, **options):
        if any(one.kind == "bad" for one in pendings):
            raise ValueError("bad")
        real(tx, state, pendings, *more, **options)

    monkeypatch.setattr(entries, "append", bad)
    with log.store.write():  # all three wait for the same transaction
        threads = [threading.Thread(target=_quietly, args=(log, act)) for act in ("bad", "attest", "bad")]
        for thread in threads:
            thread.start()
        while len(log.log._writer._waiting) < len(threads):
            threading.Event().wait(0.005)
    for thread in threads:
        thread.join(60)
    log.clock.now += timedelta(minutes=1)
    assert counts_told(log) == [{"auth a.b": 1}]


def _quietly(log, act):
    with contextlib.suppress(ValueError):
        log.decide(logs.nonce(), act=act)
