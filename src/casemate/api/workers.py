"""Several worker processes on one port: started, watched, started again, ended together.

Each is `casemate serve --worker` with a broker of its own; they share the store, and a folder for their counters. The
kernel deals connections out (SO_REUSEPORT). This process opens no store, holds no key and takes no connection.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from casemate.errors import Unusable

if TYPE_CHECKING:
    from casemate.broker.settings import Settings

COUNTERS = "PROMETHEUS_MULTIPROC_DIR"
PAUSE = 1.0  # between a worker's end and its successor's start
SPARE = 5  # seconds beyond `drain_seconds` until a worker is killed
_LOG = logging.getLogger("casemate.api")


def run(settings: Settings, log: Path | None) -> None:
    """Keep `settings.workers` workers until SIGTERM or SIGINT, which they get too; they drain and end."""
    with contextlib.ExitStack() as stack:
        _claim(settings)
        where = os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0] or None
        counters = stack.enter_context(tempfile.TemporaryDirectory(prefix="casemate-counters-", dir=where))
        _Crew(settings, log, counters).watch()


class _Crew:
    def __init__(self, settings: Settings, log: Path | None, counters: str) -> None:
        self._settings, self._log, self._counters = settings, log, counters
        self._ending = threading.Event()
        self._running: dict[int, subprocess.Popen[bytes]] = {}

    def watch(self) -> None:
        """Start them all; whoever ends is started again."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._ending.set())
        for place in range(self._settings.workers):
            self._running[place] = self._start(place)
        try:
            while not self._ending.wait(PAUSE):
                for place, worker in list(self._running.items()):
                    if worker.poll() is not None:
                        self._replace(place, worker)
        finally:
            self._end()

    def _start(self, place: int) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-m", "casemate", "serve", "--home", str(self._settings.folder), "--worker"]
        argv += ["--strict-trustee"] if self._settings.strict_trustee else []
        if self._log is not None:  # a file each: rotation is nothing that processes can share
            argv += ["--log", str(self._log.with_name(f"{self._log.stem}.{place}{self._log.suffix}"))]
        environment = {**os.environ, COUNTERS: self._counters}
        return subprocess.Popen(argv, stdin=subprocess.PIPE, env=environment)

    def _replace(self, place: int, ended: subprocess.Popen[bytes]) -> None:
        from prometheus_client import multiprocess

        _LOG.error("a worker ended", extra={"fields": {"worker": place, "code": ended.returncode}})
        _close(ended)
        os.environ[COUNTERS] = self._counters
        multiprocess.mark_process_dead(ended.pid)  # type: ignore[no-untyped-call] # the library has no types here
        self._running[place] = self._start(place)

    def _end(self) -> None:
        for worker in self._running.values():
            with contextlib.suppress(OSError):
                worker.send_signal(signal.SIGTERM)
        for worker in self._running.values():
            try:
                worker.wait(self._settings.drain_seconds + SPARE)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
            _close(worker)


def _close(worker: subprocess.Popen[bytes]) -> None:
    if worker.stdin is not None:
        worker.stdin.close()


def _claim(settings: Settings) -> None:
    """Refuse a port that somebody has: workers that share one would not notice."""
    from casemate.api.server import cannot_listen, listening

    if settings.port == 0:
        raise Unusable("workers need a port that is not 0", hint="set `port` in broker.toml")
    try:
        listening(settings, shared=False).close()
    except OSError as error:
        raise cannot_listen(settings, error) from error
