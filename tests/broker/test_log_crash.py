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


def killed(url, name, count):
    """What a process told before it was killed, after `count` lines."""
    argv = [sys.executable, "-c", CHILD, url, name]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as child:
        told = [child.stdout.readline() for _ in range(count)]
        os.kill(child.pid, signal.SIGKILL)
        told += child.stdout.read().splitlines()
    lines = [line.split() for line in told]
    return [line for line in lines if len(line) == 3 and len(line[2]) % 2 == 0 and line[2].endswith("0a")]


def cycles(url, count, lines):
    told = []
    for cycle in range(count):
        told += killed(url, f"c{cycle}", lines + cycle % 7)
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


def test_kill_9_in_the_middle_of_batches(url):
    told = cycles(url, 2, 25)
    assert len(told) >= 50
    assert len({number for number, _, _ in told}) == len(told)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_kill_9_fifty_times(url):
    assert len(cycles(url, 50, 40)) >= 2000
