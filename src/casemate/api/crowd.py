"""Requests that wait for an evaluator of their tenant: on the event loop, in turn, and no thread is kept for them.

Rules
1. A request that finds its group's share of the threads taken (`Crowded`) has done nothing yet and is begun anew when
   there is room; after SECONDS it is told that the broker is busy.
2. A group has a bound on its requests that wait; the next one is told so at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from casemate.drivers.rego import Crowded

SECONDS = 5.0
_POLL = 0.01  # seconds between two looks of whose turn it is

R = TypeVar("R")


class _Line:
    """Those of one group: they take turns at trying again."""

    def __init__(self, most: int) -> None:
        self.count, self.turn = 0, asyncio.Semaphore(most)


class Crowd:
    """All who wait, `most` of a group. For the event loop's thread alone."""

    def __init__(self, most: int) -> None:
        self._most = max(1, most)
        self._lines: dict[str, _Line] = {}

    async def wait(self, error: Crowded, act: Callable[[], Awaitable[R]]) -> R:
        """What `act` returns, once there was room for it; `Crowded` when there is none in time."""
        line = self._lines.setdefault(error.group, _Line(error.most))
        if line.count >= self._most:
            raise error
        line.count += 1
        try:
            return await _in_turn(line, error, act)
        finally:
            line.count -= 1
            if not line.count:
                self._lines.pop(error.group, None)


async def _in_turn(line: _Line, error: Crowded, act: Callable[[], Awaitable[R]]) -> R:
    ends = asyncio.get_running_loop().time() + SECONDS
    try:
        async with asyncio.timeout_at(ends):
            await line.turn.acquire()
    except TimeoutError:
        raise error from None
    try:
        return await _tried(ends, error, act)
    finally:
        line.turn.release()


async def _tried(ends: float, error: Crowded, act: Callable[[], Awaitable[R]]) -> R:
    clock = asyncio.get_running_loop().time
    while True:
        while not error.room():
            if clock() >= ends:
                raise error
            await asyncio.sleep(_POLL)
        try:
            return await act()
        except Crowded as again:  # another one was quicker
            if clock() >= ends:
                raise again from None
