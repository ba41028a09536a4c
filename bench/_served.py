"""`casemate serve`'s single process with a stopwatch for CPU time: `python -m bench._served FOLDER FILE`.

At SIGUSR1 it writes to FILE, as JSON, the CPU seconds of each step of a decision (`Meter.laps`), of the event loop's
thread (TLS, HTTP), of the log's writer, of all other threads, and of the whole process.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from casemate.api import logs, pool, server
from casemate.broker import settings
from casemate.broker.assemble import assemble
from casemate.broker.meter import Meter


class CpuMeter(Meter):
    """Sums the CPU time of the threads that decide, step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.spent: Counter[str] = Counter()

    def laps(self, act: str) -> Callable[[str], None]:
        """As `Meter.laps`, by the thread's own clock."""
        begun, told = time.thread_time(), super().laps(act)

        def lap(name: str) -> None:
            nonlocal begun
            told(name)
            now = time.thread_time()
            self.spent[f"{act} {name}"] += now - begun  # type: ignore[assignment] # a Counter of seconds
            begun = now

        return lap


def main(folder: Path, file: Path) -> None:
    """Serve until SIGTERM."""
    os.umask(0o077)
    logs.log_to(file.with_suffix(".log"))
    meter = CpuMeter()
    broker = dataclasses.replace(assemble(settings.load(folder)), meter=meter)

    def tell(*_: object) -> None:
        clocks = {t: time.pthread_getcpuclockid(t.ident) for t in threading.enumerate() if t.ident}
        threads = {t.name: time.clock_gettime(clock) for t, clock in clocks.items()}
        told = {**meter.spent, "loop": threads["MainThread"], "writer": threads.get("casemate log", 0.0)}
        told["pool"] = sum(time.clock_gettime(c) for t, c in clocks.items() if t.name.startswith(pool.NAME))
        fresh = file.with_suffix(".new")
        fresh.write_text(json.dumps({**told, "process": time.process_time()}))
        fresh.rename(file)

    signal.signal(signal.SIGUSR1, tell)
    server.serve(broker)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
