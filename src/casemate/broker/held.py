"""Answers that are held until what was decided is on disk, without a thread that waits for it.

Rules
1. Inside `collecting` a decision is handed to the log's writer and its act goes on: it may compute its answer, and
   nothing of the answer leaves before `settled` returned.
2. `settled` raises what recording at once would have raised. Its error goes before that of the act: what was not
   recorded is no refusal either.
3. A door waits however the act ended, also when it raised: a refusal is a decision too.
4. Once `collecting` ended, and wherever nobody collects, a decision is on disk when it is recorded.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from casemate.broker.log import Decision, Log
from casemate.drivers.store import writer
from casemate.drivers.store.writer import Work

Steps = Generator[Decision, None, None]
"""What is to be recorded, one after another: it is resumed when the last one is on disk, or with the error."""


class Hold(NamedTuple):
    """A decision that was handed to the writer, and what comes after it."""

    log: Log
    steps: Steps
    work: Work[Decision]


class Holds(list[Hold]):
    """What one answer waits for; `open` as long as acts may add to it."""

    open = True


_HOLDS: ContextVar[Holds | None] = ContextVar("holds", default=None)


@contextmanager
def collecting() -> Iterator[Holds]:
    """Decisions of this context, and of threads that copied it, are not waited for; `settled` does, with this list."""
    holds = Holds()
    token = _HOLDS.set(holds)
    try:
        yield holds
    finally:
        holds.open = False
        _HOLDS.reset(token)


async def settled(holds: list[Hold]) -> None:
    """Wait until all of it is on disk or failed, and raise the error of the first that failed."""
    failed: Exception | None = None
    for hold in holds:
        try:
            await _settled(hold)
        except Exception as error:  # noqa: BLE001 - each is driven to its end; the first is raised below
            failed = failed or error
    holds.clear()
    if failed is not None:
        raise failed


def record(log: Log, steps: Steps) -> None:
    """Record what `steps` says: now, or for `settled` where holds are collected."""
    holds, decision = _HOLDS.get(), next(steps)
    if holds is not None and holds.open:
        holds.append(Hold(log, steps, log.begin(decision)))
        return
    following: Decision | None = decision
    while following is not None:
        try:
            log.record(following)
        except Exception as error:  # noqa: BLE001 - it is the steps' to translate
            following = _resumed(steps, error)
        else:
            following = _resumed(steps, None)


async def _settled(hold: Hold) -> None:
    work: Work[Decision] = hold.work
    while True:
        try:
            await writer.settled(work)
        except Exception as error:  # noqa: BLE001 - as above
            following = _resumed(hold.steps, error)
        else:
            following = _resumed(hold.steps, None)
        if following is None:
            return
        work = hold.log.begin(following)


def _resumed(steps: Steps, error: Exception | None) -> Decision | None:
    """The next decision to record; None at the end."""
    try:
        return next(steps) if error is None else steps.throw(error)
    except StopIteration:
        return None
