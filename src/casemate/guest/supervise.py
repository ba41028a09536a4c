"""Keep the containers running as the manifest says: start in order, wait, restart with backoff, stop, tell exit codes.

Each container has one thread that starts it and waits for its first process. The agent is process 1, or a subreaper in
tests, so that process is its child; other orphans are reaped now and then.
"""

from __future__ import annotations

import os
import signal as signals
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, NamedTuple

from casemate.drivers.crun import Output
from casemate.errors import CasemateError, Unavailable
from casemate.guest.output import Ring
from casemate.guest.settings import Runtime
from casemate.schema.manifest import Container

FIRST_WAIT = 1.0
LONGEST_WAIT = 60.0
STEADY = 60.0  # after so many seconds of running the backoff begins anew
_KILL_SECONDS = 10.0

Event = Callable[[str, str, int | None], None]
Heard = Callable[[str, str, bytes], None]


class Task(NamedTuple):
    """A container and its bundle, ready to start."""

    container: Container
    bundle: Path


class Supervisor:
    """All containers of the workload.

    `event(name, what, code)` and `heard(name, stream, data)` must not block; `ended()` is called when the last
    container has ended for good.
    """

    def __init__(
        self, runtime: Runtime, event: Event, heard: Heard | None = None, ended: Callable[[], None] | None = None
    ) -> None:
        self._runtime, self._event, self._heard, self._ended = runtime, event, heard, ended
        self._watched: dict[str, _Watched] = {}
        self._stopping = threading.Event()

    def start(self, task: Task) -> None:
        """Start a container; `Unavailable` when its first start fails. Its restarts are seen to from here on."""
        watched = _Watched(
            task,
            self._runtime,
            event=self._event,
            heard=self._heard,
            stopping=self._stopping,
            ended=self._done,
        )
        self._watched[task.container.name] = watched
        watched.begin()

    def wait(self, timeout: float | None = None) -> bool:
        """True when every container has ended for good; False after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        for watched in list(self._watched.values()):
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not watched.done.wait(left):
                return False
        return True

    def processes(self) -> set[int]:
        """The process ids of the containers' first processes."""
        return {watched.pid for watched in list(self._watched.values())}

    def codes(self) -> dict[str, int | None]:
        """Exit code of each container that ended; a signal's number plus 128."""
        return {name: watched.code for name, watched in self._watched.items()}

    def output(self, name: str) -> Ring:
        """What the container wrote."""
        watched = self._watched.get(name)
        return watched.ring if watched else Ring()

    def signal(self, name: str, number: int) -> None:
        """Send a signal to the container's first process."""
        watched = self._watched.get(name)
        if watched is None or not watched.send(number):
            raise Unavailable(f"container {name} is not running")

    def execute(self, name: str, command: tuple[str, ...], *, timeout: float, limit: int) -> Output:
        """Run a command in a running container."""
        watched = self._watched.get(name)
        if watched is None or not watched.alive:
            raise Unavailable(f"container {name} is not running")
        return self._runtime.execute(name, command, timeout=timeout, limit=limit)

    def stop(self, grace: float) -> None:
        """Send each container its stop signal, wait `grace` seconds in all, then kill what is left."""
        self._stopping.set()
        for watched in list(self._watched.values()):
            watched.send(signals.Signals[watched.task.container.stop_signal])
        if not self.wait(grace):
            for watched in list(self._watched.values()):
                watched.kill()
            self.wait(_KILL_SECONDS)

    def _done(self) -> None:
        if self._ended is not None and all(watched.done.is_set() for watched in list(self._watched.values())):
            self._ended()


class _Watched:
    """One container's life."""

    def __init__(
        self,
        task: Task,
        runtime: Runtime,
        *,
        event: Event,
        heard: Heard | None,
        stopping: threading.Event,
        ended: Callable[[], None],
    ) -> None:
        self.task, self._runtime, self._event, self._heard = task, runtime, event, heard
        self._stopping, self._ended = stopping, ended
        self._name = task.container.name
        self._lock = threading.Lock()
        self.pid = 0
        self.ring = Ring()
        self.code: int | None = None
        self.done = threading.Event()

    @property
    def alive(self) -> bool:
        """Whether its first process has not been waited for."""
        return self.pid != 0

    def begin(self) -> None:
        """Start, and watch in a thread."""
        try:
            self._start()
        except BaseException:
            self.done.set()
            raise
        threading.Thread(target=self._live, name=f"container {self._name}", daemon=True).start()

    def send(self, number: int) -> bool:
        """Signal the first process; False when there is none. It can't be another's: it is our unwaited child."""
        with self._lock:
            if not self.pid:
                return False
            os.kill(self.pid, number)
            return True

    def kill(self) -> None:
        """End every process of the container."""
        if self.send(signals.SIGKILL):
            self._quietly(lambda: self._runtime.kill(self._name, signals.SIGKILL))

    def _live(self) -> None:
        try:
            self._lives()
        finally:  # whatever went wrong, nobody waits for it any more
            self.done.set()
            self._ended()

    def _lives(self) -> None:
        wait = FIRST_WAIT
        while True:
            began = time.monotonic()
            code = self.code = self._wait()
            self._event(self._name, "exited", code)
            self._quietly(lambda: self._runtime.delete(self._name))
            if time.monotonic() - began > STEADY:
                wait = FIRST_WAIT
            if not self._again(code) or not self._restart(wait):
                break
            wait = min(LONGEST_WAIT, wait * 2)

    def _again(self, code: int) -> bool:
        policy = self.task.container.restart
        return not self._stopping.is_set() and (policy == "always" or (policy == "on-failure" and code != 0))

    def _restart(self, wait: float) -> bool:
        """Wait and start again, as often as it takes; False when the workload stops meanwhile."""
        while True:
            self._event(self._name, "restarting", None)
            if self._stopping.wait(wait):
                return False
            try:
                self._start()
            except (CasemateError, OSError):  # the machine may be short of something for a while
                wait = min(LONGEST_WAIT, wait * 2)
            else:
                return True

    def _start(self) -> None:
        pipes = []
        try:
            for stream in ("stdout", "stderr"):
                read, write = os.pipe2(os.O_CLOEXEC)
                pipes.append(os.fdopen(write, "wb", buffering=0))
                self._listen(stream, os.fdopen(read, "rb", buffering=0))
            with self._lock:
                self.pid = self._runtime.run(self._name, self.task.bundle, pipes[0], pipes[1])
        finally:
            for pipe in pipes:
                pipe.close()
        self._event(self._name, "started", None)
        if self._stopping.is_set():
            self.kill()

    def _wait(self) -> int:
        """The exit code of the first process, which stays a zombie until nobody can signal it any more."""
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        with self._lock:
            _, status = os.waitpid(self.pid, 0)
            self.pid = 0
        code = os.waitstatus_to_exitcode(status)
        return 128 - code if code < 0 else code

    def _listen(self, stream: str, pipe: IO[bytes]) -> None:
        def drain() -> None:
            with pipe:
                while data := pipe.read(32768):
                    self.ring.add(stream, data)
                    if self._heard is not None:
                        self._heard(self._name, stream, data)

        threading.Thread(target=drain, name=f"{stream} of {self._name}", daemon=True).start()

    def _quietly(self, call: Callable[[], None]) -> None:
        try:
            call()
        except (CasemateError, OSError):
            return


def reap_orphans(ours: set[int], seen: set[int]) -> set[int]:
    """Reap zombies among our children that were there at the last look too (`seen`); returns those of this look.

    A child that some thread is about to wait for is never older than one look.
    """
    zombies = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
        except (OSError, ValueError):
            continue
        if state == "Z" and int(parent) == os.getpid() and int(entry.name) not in ours:
            zombies.add(int(entry.name))
    for pid in zombies & seen:
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            continue
    return zombies - seen
