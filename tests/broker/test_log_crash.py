"""kill -9 in the middle of batches: what was acknowledged is in the log, and every checkpoint ever told still holds."""

import os
import signal
import subprocess
import sys

import pytest

from casemate.broker import receipts
from casemate.drivers.store import AlreadySpent
from casemate.drivers.store import log as entries
from casemate.ledger import note, receipt
from casemate.testing import log as logs
from casemate.testing import postgres, programs

# Decides without end in 8 threads; tells each receipt after it was acknowledged, with the checkpoint as it is then.
CHILD = """
import sys, threading
from casemate.broker import receipts
from casemate.testing import log as logs

log = logs.bare(sys.argv[1])
lock = threading.Lock()

def work(thread):
    number = 0
    while True:
        nonce = f"{sys.argv[2]}-{thread}-{number}"
        told = log.decide(nonce), nonce, receipts.checkpoint(log).encode().hex()
        with lock:
            sys.stdout.write(" ".join(told) + chr(10))
            sys.stdout.flush()
        number += 1

for thread in range(8):
    threading.Thread(target=work, args=(thread,)).start()
"""


# The same in 24 tasks of an event loop, none of which has a thread that waits for it.
HELD = """
import asyncio, sys
from casemate.broker import held, receipts
from casemate.broker.log import Decision
from casemate.drivers.store import record
from casemate.testing import log as logs

log = logs.bare(sys.argv[1])

def steps(decision):
    yield decision

async def work(task):
    number = 0
    while True:
        nonce, now = f"{sys.argv[2]}-{task}-{number}", log.clock()
        entry = log.log.pending("attest", now, True, logs.FIELDS)
        row = record.row(now, "attest", [logs.GOOD], genuine=True, tee="snp")
        with held.collecting() as holds:
            held.record(log.log, steps(Decision(row, entry, record.Ticket(nonce, 1 << 42))))
        await held.settled(holds)
        print(entry.id, nonce, receipts.checkpoint(log).encode().hex(), flush=True)
        number += 1

async def main():
    await asyncio.gather(*map(work, range(24)))

asyncio.run(main())
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'store.db'}"
        return
    try:
        with postgres.server() as made:
            yield made
    except programs.Missing as reason:
        pytest.skip(str(reason))


def killed(url, name, count, code):
    """What a process told before it was killed, after `count` lines."""
    argv = [sys.executable, "-c", code, url, name]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as child:
        told = [child.stdout.readline() for _ in range(count)]
        os.kill(child.pid, signal.SIGKILL)
        told += child.stdout.read().splitlines()
    lines = [line.split() for line in told]
    return [line for line in lines if len(line) == 3 and len(line[2]) % 2 == 0 and line[2].endswith("0a")]


def cycles(url, count, lines, code=CHILD):
    told = []
    for cycle in range(count):
        told += killed(url, f"c{cycle}", lines + cycle % 7, code)
        with logs.opened(url) as log:  # starting again finds the log sound
            known = receipts.keys(log)
            checkpoints = {bytes.fromhex(line[2]).decode() for line in told}
            for text in checkpoints:
                signed, _ = note.open_note(text, known.verifiers)
                assert receipts.extends(log, note.parse_checkpoint(signed))
            for number, _, _ in told:
                receipt.verify(receipts.receipt(log, number), known)
            with log.store.read() as tx:
                state = entries.state(tx)
                assert entries.length(tx) == state.size >= len(told)
            with pytest.raises(AlreadySpent):
                log.decide(told[-1][1])
    return told


@pytest.mark.parametrize("code", [CHILD, HELD], ids=["threads", "held"])
def test_kill_9_in_the_middle_of_batches(url, code):
    told = cycles(url, 2, 25, code)
    assert len(told) >= 50
    assert len({number for number, _, _ in told}) == len(told)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_kill_9_fifty_times(url):
    assert len(cycles(url, 50, 40)) >= 2000
