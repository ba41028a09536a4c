"""Group commit: one thread a process writes for many callers, each batch in one durable transaction.

Rules
1. `submit` returns after the transaction that holds the work is on disk; or it raises why the work is not recorded.
   `begin` only hands the work over: `settled` says the same of it later, without a thread that waits.
2. An error of one caller's work is that caller's alone. A batch that fails for another reason is done again one by one.
3. The queue is bounded: who finds it full for `PATIENCE` seconds is told so, and nothing of his is recorded.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

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

    __slots__ = ("error", "given_up", "over", "waker", "what")

    def __init__(self, what: T) -> None:
        self.what = what
        self.error: BaseException | None = None
        self.given_up = False
        self.over = False  # recorded, or `error` says why not; set under `_WAKING`
        self.waker: threading.Event | asyncio.Future[None] | None = None  # who waits for that


Commit = Callable[[Connection, Sequence[Work[T]]], None]
_WAKING = threading.Lock()  # between who says that work is over and who begins to wait for it


async def settled(work: Work[Any]) -> None:
    """Wait on the event loop until work of `Writer.begin` is on disk, or raise why it is not recorded.

    Who is cancelled meanwhile leaves it to the writer: it is recorded all the same.
    """
    with _WAKING:
        waker = None if work.over else asyncio.get_running_loop().create_future()
        work.waker = waker
    if waker is not None:
        try:
            async with asyncio.timeout(LONGEST):
                await waker
        except TimeoutError:
            raise _late(work) from None
    if work.error is not None:
        raise work.error


class Writer(Generic[T]):
    """Records work with `commit`, which gets the transaction and a batch; `tick` is called between batches.

    `done` is called when that transaction is on disk: what `commit` notes in memory becomes true there and not before.
    `tick` returns after how many seconds it wants to be called again, None for never. The thread starts with the first
    work, in the process that has it: a fork takes no thread along.
    """

    def __init__(
        self,
        store: Store,
        commit: Commit[T],
        tick: Callable[[], float | None] = lambda: None,
        done: Callable[[], None] = lambda: None,
    ) -> None:
        self._store, self._commit, self._tick, self._done = store, commit, tick, done
        self._closed = False
        self.forked()
        _WRITERS.add(self)

    def forked(self) -> None:
        """Begin anew, with neither thread nor work: for the child of a fork."""
        guard = threading.Lock()
        self._filled, self._emptied = threading.Condition(guard), threading.Condition(guard)
        self._waiting: deque[Work[T]] = deque()
        self._woken = False
        self._thread: threading.Thread | None = None

    def begin(self, what: T, *, patience: float = 0.0) -> Work[T]:
        """Hand work over; `Unavailable` where the queue is full for so many seconds. Somebody has to wait for it."""
        work = Work(what)
        with self._filled:
            self._run_thread()
            if len(self._waiting) >= WAITING and not self._emptied.wait_for(self._has_room, patience):
                raise Unavailable("the log has more to write than its disk takes", hint="try again in a moment")
            self._run_thread()
            self._waiting.append(work)
            self._filled.notify()
        return work

    def submit(self, what: T) -> None:
        """Record `what` durably. Never call it inside a transaction: it would wait for itself."""
        work = self.begin(what, patience=PATIENCE)
        with _WAKING:
            waker = None if work.over else threading.Event()
            work.waker = waker
        if waker is not None and not waker.wait(LONGEST):
            raise _late(work)
        if work.error is not None:
            raise work.error

    def wake(self) -> None:
        """Let `tick` say anew when it wants to be called; does not wait, and at the end does nothing."""
        with contextlib.suppress(Unavailable), self._filled:
            self._run_thread()
            self._woken = True
            self._filled.notify()

    def alive(self) -> bool:
        """Whether work would be taken: it is not closed, its thread (if any work came yet) runs, the queue has room."""
        thread = self._thread
        return not self._closed and (thread is None or thread.is_alive()) and self._has_room()

    def close(self) -> None:
        """Write what waits, then end. Work that comes later is refused."""
        with self._filled:
            self._closed = True
            thread, self._thread = self._thread, None
            self._filled.notify()
        if thread is not None:
            thread.join(LONGEST)

    def _has_room(self) -> bool:
        return len(self._waiting) < WAITING

    def _run_thread(self) -> None:
        """Start the thread when there is none; the lock is held."""
        if self._closed:
            raise Unavailable("the broker is stopping", hint="ask again; another replica may answer")
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="casemate log", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        pause: float | None = None
        while True:
            with self._filled:
                self._filled.wait_for(lambda: self._waiting or self._woken or self._closed, pause)
                self._woken, some = False, bool(self._waiting)
            if some:
                self._record([])
            elif self._closed:
                return
            try:
                pause = self._tick()
            except Exception:  # noqa: BLE001 - the store is away, or worse: the next work says so to its caller
                pause = 1.0

    def _gather(self, batch: list[Work[T]]) -> list[Work[T]]:
        """Add what waits now to an empty batch, at most `BATCH`."""
        if not batch:
            with self._filled:
                found = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
                self._emptied.notify(len(found))
            batch += [work for work in found if not work.given_up]
        return batch

    def _record(self, batch: list[Work[T]]) -> None:
        """Write a batch, or (when it is empty) what waits once it is our turn to write: others may take long."""
        try:
            with self._store.write() as tx:
                for work in self._gather(batch):
                    work.error = None
                self._commit(tx, batch)
        except Unavailable as error:
            for work in self._gather(batch):
                work.error = error
        except Exception as error:  # noqa: BLE001 - whatever it was, it must reach a caller and not end the thread
            if len(self._gather(batch)) > 1:
                for work in batch:
                    self._record([work])
                return
            for work in batch:
                work.error = error
        else:
            self._done()
        _tell(batch)


def _late(work: Work[Any]) -> Unavailable:
    work.given_up = True
    return Unavailable("the store did not answer in time", hint="see its disk or its server")


def _tell(batch: Sequence[Work[Any]]) -> None:
    """Wake who waits for this work: each thread, and each event loop once."""
    with _WAKING:
        for work in batch:
            work.over = True
        wakers = [work.waker for work in batch if work.waker is not None]
    loops: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for waker in wakers:
        if isinstance(waker, threading.Event):
            waker.set()
        else:
            loops.setdefault(waker.get_loop(), []).append(waker)
    for loop, futures in loops.items():
        with contextlib.suppress(RuntimeError):  # a loop that was closed meanwhile: nobody waits any more
            loop.call_soon_threadsafe(_release, futures)


def _release(futures: Sequence[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)


_WRITERS: weakref.WeakSet[Writer[Any]] = weakref.WeakSet()


def _forked() -> None:
    global _WAKING  # noqa: PLW0603 - another thread of the parent may have held it
    _WAKING = threading.Lock()
    for writer in _WRITERS:
        writer.forked()


os.register_at_fork(after_in_child=_forked)
