"""How many decisions a second the log takes from 32 callers, on SQLite and PostgreSQL; and what a proof costs.

A decision is what `/attest` records: a spent nonce, a line of the journal, an entry with its openings, the signed
checkpoint. Each caller waits until his is on disk. Beside it: one caller alone, and two processes that share one file.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from casemate.broker import receipts
from casemate.testing import postgres, programs
from casemate.testing.log import Bare, nonce, opened

CALLERS = 32
SECONDS = 5.0
WANTED = 1000


def main() -> int:
    """Print the figures; 1 when fewer decisions a second got through by the clock than are wanted."""
    with tempfile.TemporaryDirectory() as folder:
        busy = os.getloadavg()[0]
        print(f"one fsync of this disk: {_fsync(Path(folder)) * 1000:.2f} ms; load {busy:.1f} on {os.cpu_count()} CPUs")
        with opened(f"sqlite:///{folder}/store.db") as log:
            best = _figures("SQLite", log)
        _together(f"sqlite:///{folder}/store.db")
    try:
        with postgres.server() as url, opened(url) as log:
            _figures("PostgreSQL (fsync off, as in the tests)", log)
    except programs.Missing as reason:
        print(f"PostgreSQL: {reason}")
    return 0 if best >= WANTED else 1


def _figures(name: str, log: Bare) -> float:
    """Decisions a second by the clock; the CPU time beside it tells what other load took."""
    alone = _rate(log, 1, SECONDS / 2)
    begun = time.process_time()
    many = _rate(log, CALLERS, SECONDS)
    spent = (time.process_time() - begun) / (many[0] * SECONDS)
    print(
        f"{name}: {many[0]:.0f} decisions/s from {CALLERS} callers, p50 {many[1]:.1f} ms, p99 {many[2]:.1f} ms;", end=""
    )
    print(f" {spent * 1e6:.0f} us of our CPU each; one caller alone {alone[0]:.0f}/s")
    ids = [log.decide(nonce()) for _ in range(20)]
    begun = time.perf_counter()
    for number in ids * 5:
        receipts.receipt(log, number)
    print(
        f"    a receipt, proved: {(time.perf_counter() - begun) * 10:.2f} ms; {_cpu(log) * 1e6:.0f} us to make an entry"
    )
    return many[0]


def _together(url: str) -> None:
    """Two processes on one store: do they take turns, and how long does the last one wait?"""
    argv = [sys.executable, "-c", "from bench import log; import sys; log.share(sys.argv[1])", url]
    for child in [subprocess.Popen(argv) for _ in range(2)]:
        child.wait()


def share(url: str) -> None:
    """One of two processes."""
    with opened(url) as log:
        found = _rate(log, CALLERS // 2, SECONDS)
    told = f"{found[0]:.0f} decisions/s from {CALLERS // 2} callers, p50 {found[1]:.1f} ms, p99 {found[2]:.1f} ms"
    print(f"    one of two processes: {told}", flush=True)


def _rate(log: Bare, callers: int, seconds: float) -> tuple[float, float, float]:
    times: list[float] = []
    end = time.perf_counter() + seconds

    def call() -> None:
        while (begun := time.perf_counter()) < end:
            log.decide(nonce())
            times.append(time.perf_counter() - begun)

    threads = [threading.Thread(target=call) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ordered = sorted(times)
    return len(times) / seconds, statistics.median(ordered) * 1000, ordered[int(len(ordered) * 0.99)] * 1000


def _cpu(log: Bare) -> float:
    begun = time.perf_counter()
    for _ in range(200):
        log.log.pending("attest", log.clock(), True, {"app": "sha256:" + "a" * 64, "tee": "snp", "key": "x" * 43})
    return (time.perf_counter() - begun) / 200


def _fsync(folder: Path) -> float:
    times = []
    with (folder / "probe").open("wb") as file:
        for _ in range(50):
            file.write(b"x" * 4096)
            file.flush()
            begun = time.perf_counter()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - begun)
    return statistics.median(times)
