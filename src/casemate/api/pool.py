"""Threads for what computes or waits for disks and databases: a queue, and one wake-up of the event loop an answer.

Fewer threads than requests: Python runs one of them at a time, so more of them only take turns more often. What waits
for the log's writer waits on the event loop (`casemate.broker.held`), and no thread is kept for it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context, copy_context
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

NAME = "casemate act"

R = TypeVar("R")
_Job = tuple[Context, Callable[..., Any], tuple[Any, ...], asyncio.AbstractEventLoop, "asyncio.Future[Any]"]


class Pool:
    """`threads` threads, started with the first job. For one event loop at a time."""

    def __init__(self, threads: int) -> None:
        self._count = threads
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []

    async def run(self, act: Callable[..., R], *given: Any) -> R:
        """What `act` returns or raises, run in the caller's context. Cancelling doesn't stop it."""
        if not self._threads:
            self._start()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        self._queue.put((copy_context(), act, given, loop, future))
        return await future

    def close(self) -> None:
        """End the threads when what they do now is done; what still waits is not begun, and whoever awaits it is told.

        An act that was begun goes on: what it decides is recorded, and nothing that rests on it is answered.
        """
        with suppress(Empty):
            while True:
                if (job := self._queue.get_nowait()) is not None:
                    _tell(job[3], _dropped, job[4], None)
        for _ in self._threads:
            self._queue.put(None)
        self._threads = []

    def _start(self) -> None:
        self._threads = [
            threading.Thread(target=_work, args=(self._queue,), name=f"{NAME} {number}", daemon=True)
            for number in range(self._count)
        ]
        for thread in self._threads:
            thread.start()


def _work(queue: SimpleQueue[_Job | None]) -> None:
    while (job := queue.get()) is not None:
        context, act, given, loop, future = job
        try:
            found = context.run(act, *given)
        except BaseException as error:  # noqa: BLE001 - it is the caller's
            _tell(loop, _failed, future, error)
        else:
            _tell(loop, _done, future, found)
        del job, context, act, given, future  # a request is not kept until the next one comes


def _tell(loop: asyncio.AbstractEventLoop, how: Callable[..., None], future: asyncio.Future[Any], what: Any) -> None:
    try:
        loop.call_soon_threadsafe(how, future, what)
    except RuntimeError:  # the loop was closed: nobody waits any more
        return


def _done(future: asyncio.Future[Any], found: Any) -> None:
    if not future.done():
        future.set_result(found)


def _dropped(future: asyncio.Future[Any], _: None) -> None:
    future.cancel()


def _failed(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error if isinstance(error, Exception) else RuntimeError("the thread was told to end"))
