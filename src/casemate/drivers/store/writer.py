"""Group commit: one thread a process writes for many callers, each batch in one durable transaction.

Rules
1. `submit` returns after the transaction that holds the work is on disk; or it raises why the work is not recorded.
2. An error of one caller's work is that caller's alone. A batch that fails for another reason is done again one by one.
3. The queue is bounded: who finds it full for `PATIENCE` seconds is told so, and nothing of his is recorded.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from sqlalchemy import Connection

from casemate.drivers.store.engine import Store
from casemate.errors import Unavailable

BATCH = 256
WAITING = 4096
PATIENCE = 10.0
LONGEST = 60.0  # a database that doesn't answer: the caller is told, whatever becomes of his work

T = TypeVar("T")


class Work(Generic[T]):
    """What one caller wants to be recorded. `Commit` sets `error` on work that it leaves out."""

    def __init__(self, what: T) -> None:
        self.what = what
        self.error: BaseException | None = None
        self.given_up = False
        self.done = threading.Event()


Commit = Callable[[Connection, Sequence[Work[T]]], None]


class Writer(Generic[T]):
    """Records work with `commit`, which gets the transaction and a batch; `tick` is called between batches.

    `tick` returns after how many seconds it wants to be called again, None for never. The thread starts with the first
    work, in the process that has it: a fork takes no thread along.
    """

    def __init__(self, store: Store, commit: Commit[T], tick: Callable[[], float | None] = lambda: None) -> None:
        self._store, self._commit, self._tick = store, commit, tick
        self._queue: queue.Queue[Work[T] | None] = queue.Queue(WAITING)
        self._thread: threading.Thread | None = None
        self._process = 0
        self._guard = threading.Lock()
        self._closed = False

    def submit(self, what: T) -> None:
        """Record `what` durably. Never call it inside a transaction: it would wait for itself."""
        work = Work(what)
        self._running()
        try:
            self._queue.put(work, timeout=PATIENCE)
        except queue.Full:
            raise Unavailable("the log has more to write than its disk takes", hint="try again in a moment") from None
        if not work.done.wait(LONGEST):
            work.given_up = True
            raise Unavailable("the store did not answer in time", hint="see its disk or its server")
        if work.error is not None:
            raise work.error

    def wake(self) -> None:
        """Let `tick` say anew when it wants to be called; does not wait, and at the end does nothing."""
        with contextlib.suppress(queue.Full, Unavailable):
            self._running()
            self._queue.put_nowait(None)

    def alive(self) -> bool:
        """Whether work would be taken: it is not closed, its thread (if any work came yet) runs, the queue has room."""
        thread = self._thread if self._process == os.getpid() else None
        return not self._closed and (thread is None or thread.is_alive()) and not self._queue.full()

    def close(self) -> None:
        """Write what waits, then end. Work that comes later is refused."""
        with self._guard:
            self._closed = True
            thread = self._thread if self._process == os.getpid() else None
            self._thread = None
        if thread is not None:
            self._queue.put(None)
            thread.join(LONGEST)

    def _running(self) -> None:
        if self._thread is not None and self._process == os.getpid():
            return
        with self._guard:
            if self._closed:
                raise Unavailable("the broker is stopping", hint="ask again; another replica may answer")
            if self._thread is None or self._process != os.getpid():
                self._queue = queue.Queue(WAITING)
                self._process = os.getpid()
                self._thread = threading.Thread(target=self._run, name="casemate log", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        pause: float | None = None
        while True:
            batch = self._batch(pause)
            if batch:
                self._record(batch)
            elif self._closed:
                self._refuse_the_rest()
                return
            try:
                pause = self._tick()
            except Exception:  # noqa: BLE001 - the store is away, or worse: the next work says so to its caller
                pause = 1.0

    def _batch(self, pause: float | None) -> list[Work[T]]:
        """What waits now, at most `BATCH`; waits for the first of it up to `pause` seconds."""
        found: list[Work[T]] = []
        try:
            first = self._queue.get(timeout=pause)
            if first is not None:
                found.append(first)
            while len(found) < BATCH:
                more = self._queue.get_nowait()
                if more is not None:
                    found.append(more)
        except queue.Empty:
            pass
        return [work for work in found if not work.given_up]

    def _record(self, batch: list[Work[T]]) -> None:
        try:
            self._transact(batch)
        except Unavailable as error:
            for work in batch:
                work.error = error
        except Exception as error:  # noqa: BLE001 - whatever it was, it must reach a caller and not end the thread
            if len(batch) == 1:
                batch[0].error = error
            else:
                for work in batch:
                    self._record([work])
                return
        for work in batch:
            work.done.set()

    def _transact(self, batch: list[Work[T]]) -> None:
        for work in batch:
            work.error = None
        with self._store.write() as tx:
            self._commit(tx, batch)

    def _refuse_the_rest(self) -> None:
        while True:
            try:
                work = self._queue.get_nowait()
            except queue.Empty:
                return
            if work is not None:
                work.error = Unavailable("the broker is stopping", hint="ask again; another replica may answer")
                work.done.set()
