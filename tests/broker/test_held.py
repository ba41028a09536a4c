"""Held answers: acts go on before their decisions are on disk, and the answers don't."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from casemate.broker import held, journal
from casemate.broker.refusals import Unauthenticated
from casemate.broker.sessions import Session
from casemate.drivers.store import log as entries
from casemate.drivers.store import record, tables
from casemate.drivers.store import writer as writers
from casemate.errors import Finding, Refused, Unavailable
from casemate.testing import log as logs

NOW = datetime.now(UTC)
GOOD, BAD = Finding("a.good", "x", "x", ok=True), Finding("a.bad", "x", "y", "ask")


class Meter:
    def __init__(self):
        self.told = []

    def decided(self, act, tee, findings):
        self.told.append((act, tee, [f.rule for f in findings if not f.ok]))


class Broker:
    """What of a broker `journal` needs, with a writer that can be held up."""

    def __init__(self, bare):
        self.log, self.store, self.clock, self.meter = bare.log, bare.store, bare.clock, Meter()
        self.gate = threading.Event()
        self.gate.set()
        self.batches = []
        self.log._writer._commit = self._commit

    def _commit(self, tx, batch):
        self.gate.wait(20)
        self.batches.append(len(batch))
        self.log._commit(tx, batch)

    def decided(self, nonce=None, **more):
        session = Session(
            tee="snp",
            platform_class="production",
            app_id="sha256:" + "a" * 64,
            manifest_digest="sha256:" + "b" * 64,
            tee_pubkey={"kty": "EC", "crv": "P-256", "x": "x", "y": "y"},
            expires=0,
        )
        ticket = None if nonce is None else record.Ticket(nonce, int((NOW + timedelta(hours=1)).timestamp() * 1000))
        return journal.decided(self, "attest", NOW, session, more.pop("findings", (GOOD,)), spends=ticket, **more)

    def receipts(self):
        with self.store.read() as tx:
            return set(tx.execute(text("SELECT id FROM log_openings")).scalars())

    def acts(self):
        with self.store.read() as tx:
            return [tuple(row) for row in tx.execute(text("SELECT act, genuine FROM decisions ORDER BY id"))]


@pytest.fixture
def broker(tmp_path):
    with logs.opened(f"sqlite:///{tmp_path / 'store.db'}") as bare:
        made = Broker(bare)
        yield made
        made.gate.set()


def test_an_act_goes_on_and_its_answer_waits(broker):
    async def answer():
        broker.gate.clear()
        with held.collecting() as holds:
            receipt = broker.decided(logs.nonce())
        assert len(holds) == 1
        waiting = asyncio.ensure_future(held.settled(holds))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        assert (broker.receipts(), broker.meter.told) == (set(), [])
        broker.gate.set()
        await waiting
        assert (holds, broker.receipts()) == ([], {receipt})

    asyncio.run(answer())
    assert broker.meter.told == [("attest", "snp", [])]


def test_outside_it_is_on_disk_at_once(broker):
    assert {broker.decided()} == broker.receipts()
    assert len(broker.meter.told) == 1
    with held.collecting() as holds:
        pass
    assert {broker.decided()} <= broker.receipts()
    assert holds == []


def test_a_context_that_outlives_its_answer_waits_itself(broker):
    """What a request started and left behind: nobody would wait for its holds."""
    with held.collecting() as holds:
        holds.open = False
        assert {broker.decided()} <= broker.receipts()
    assert holds == []


def test_threads_that_copied_the_context_collect_too(broker):
    async def answer():
        with held.collecting() as holds:
            ids = [await asyncio.to_thread(broker.decided, logs.nonce()) for _ in range(3)]
        assert len(holds) == 3
        await held.settled(holds)
        assert broker.receipts() == set(ids)

    asyncio.run(answer())


def test_a_nonce_that_was_used_meanwhile_is_a_replay(broker):
    async def answer():
        with held.collecting() as holds:
            first, _ = broker.decided("same"), broker.decided("same")
            last = broker.decided("other")
        with pytest.raises(Unauthenticated) as caught:
            await held.settled(holds)
        assert caught.value.findings[0].rule == "session.replay"
        assert broker.receipts() == {first, last}

    asyncio.run(answer())
    assert sorted(broker.acts()) == [("attest", 0), ("attest", 1), ("attest", 1)]
    assert broker.meter.told == [("attest", "snp", [])] * 2
    assert [rule for _, _, rule in broker.log._counts] == ["session.replay"]


def test_what_an_act_in_the_transaction_raises_reaches_the_answer(broker):
    def gone(tx):
        tx.execute(tables.keys.insert().values(name="gone", sealed=b"", created=1))
        raise Unavailable("the lease ended a moment ago")

    async def answer():
        with held.collecting() as holds:
            broker.decided(together=gone)
            other = broker.decided()
        with pytest.raises(Unavailable, match="lease ended"):
            await held.settled(holds)
        assert broker.receipts() == {other}

    asyncio.run(answer())
    assert len(broker.meter.told) == 1
    with broker.store.read() as tx:
        assert "gone" not in set(tx.execute(text("SELECT name FROM keys")).scalars())


def test_a_store_that_is_away_is_told(broker, monkeypatch):
    def away():
        raise Unavailable("away")

    async def answer():
        monkeypatch.setattr(broker.store, "write", away)
        with held.collecting() as holds:
            broker.decided()
        with pytest.raises(Unavailable, match="away"):
            await held.settled(holds)

    asyncio.run(answer())
    assert broker.meter.told == []


def test_a_store_that_does_not_answer_is_given_up(broker, monkeypatch):
    async def answer():
        monkeypatch.setattr(writers, "LONGEST", 0.02)
        broker.gate.clear()
        with held.collecting() as holds:
            broker.decided()
        with pytest.raises(Unavailable, match="in time"):
            await held.settled(holds)
        broker.gate.set()

    asyncio.run(answer())
    assert broker.meter.told == []


def test_a_writer_that_ended_says_so_at_once(broker):
    broker.log.close()
    with held.collecting() as holds, pytest.raises(Unavailable, match="stopping"):
        broker.decided()
    assert holds == []


def test_a_refusal_is_recorded_and_counted_when_it_is(broker):
    async def answer():
        with held.collecting() as holds:
            broker.decided(findings=(GOOD, BAD))
        await held.settled(holds)

    asyncio.run(answer())
    assert broker.meter.told == [("attest", "snp", ["a.bad"])]


def test_evidence_that_is_no_good_is_refused_at_once_and_recorded_before_it_is_told(broker):
    ticket = record.Ticket("bad", int((NOW + timedelta(hours=1)).timestamp() * 1000))

    def attest():
        with journal.failures(broker, "attest", NOW, spends=ticket, tee="snp"):
            raise Refused((BAD,))

    async def answer():
        broker.gate.clear()
        with held.collecting() as holds, pytest.raises(Unauthenticated) as caught:
            attest()
        assert caught.value.findings == (BAD,)
        broker.gate.set()
        await held.settled(holds)

    async def again():
        with held.collecting() as holds, pytest.raises(Unauthenticated):
            attest()
        with pytest.raises(Unauthenticated) as caught:
            await held.settled(holds)
        assert caught.value.findings[0].rule == "session.replay"

    asyncio.run(answer())
    asyncio.run(again())
    with pytest.raises(Unauthenticated) as caught:
        attest()
    assert caught.value.findings[0].rule == "session.replay"
    assert broker.acts() == [("attest", 0)]
    assert [rules for _, _, rules in broker.meter.told] == [["a.bad"], ["session.replay"], ["session.replay"]]


def test_one_batch_wakes_a_loop_once(broker):
    async def answer():
        loop, calls = asyncio.get_running_loop(), []
        wake = loop.call_soon_threadsafe
        loop.call_soon_threadsafe = lambda *args: (calls.append(args), wake(*args))
        broker.gate.clear()
        lists = []
        for _ in range(20):
            with held.collecting() as holds:
                broker.decided()
            lists.append(holds)
        waiting = [asyncio.ensure_future(held.settled(holds)) for holds in lists]
        await asyncio.sleep(0.05)
        broker.gate.set()
        await asyncio.gather(*waiting)
        assert len(calls) <= len(broker.batches) < 20

    asyncio.run(answer())
    assert sum(broker.batches) == 20


def test_who_is_cancelled_leaves_a_record(broker):
    async def answer():
        broker.gate.clear()
        with held.collecting() as holds:
            receipt = broker.decided()
        waiting = asyncio.ensure_future(held.settled(holds))
        await asyncio.sleep(0.02)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        return receipt

    receipt = asyncio.run(answer())
    broker.gate.set()  # and the loop is closed by now
    assert {broker.decided(), receipt} == broker.receipts()


def test_threads_and_loops_share_the_writer(broker):
    async def answer():
        with held.collecting() as holds:
            ids = [broker.decided(logs.nonce()) for _ in range(10)]
        await held.settled(holds)
        return ids

    with ThreadPoolExecutor(8) as pool:
        loops = [pool.submit(asyncio.run, answer()) for _ in range(4)]
        threads = [pool.submit(broker.decided, logs.nonce()) for _ in range(20)]
        wanted = {one for loop in loops for one in loop.result(30)} | {one.result(30) for one in threads}
    assert broker.receipts() == wanted
    assert len(wanted) == 60
    with broker.store.read() as tx:
        assert entries.state(tx).size == 60
