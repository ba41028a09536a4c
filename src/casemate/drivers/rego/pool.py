"""The pool of evaluators: started when needed, replaced when they die, never more than a few.

Rules
1. A question has a deadline; a child that does not answer by then is killed, and the question fails closed.
2. A child serves one group (tenant): what a policy might do to its child never touches another tenant's decision.
3. A policy that breaks its child or its deadline again and again is set aside for a while, ever longer, for the group
   that asked; likewise starting children is given up for a while when they die at once.
4. Of the callers' threads a group holds a part at most (`askers`), however slow its policies are.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from casemate.drivers.rego.askers import Askers
from casemate.drivers.rego.compile import Compiled, compile_policy
from casemate.drivers.rego.frames import Ended, TooLate
from casemate.drivers.rego.worker import Worker
from casemate.errors import CasemateError, Malformed, Unavailable
from casemate.policy.rego import inputs

SECONDS = 1.0
WAIT_SECONDS = 5.0
MAX_COMPILED = 256
FRESH = 2  # policies that are tried or set, under compilation at a time
FRESH_SECONDS = 12.0  # how long one waits for its turn; the compiler has less for each
PATIENCE = 3  # broken answers in a row before a policy is set aside
LONGEST = 60.0


class Compiling(Unavailable):
    """There is no turn at the compiler; nothing was done yet."""

    def __init__(self) -> None:
        super().__init__("other policies are being compiled", hint="try again in a moment")


class Broken(CasemateError):
    """A policy gave no answer: it took too long, used too much, contradicted itself or broke its child."""

    def __init__(self, reason: str, rule: str = "") -> None:
        super().__init__(f"the policy gave no answer: {reason}" + (f" (rule {rule})" if rule else ""))
        self.reason, self.rule = reason, rule


@dataclass(frozen=True)
class Answer:
    """Values of rules (undefined ones are absent), the reference values asked for, the lines that decided."""

    values: dict[str, Any]
    asked: dict[str, bool]
    rows: dict[str, int]

    @property
    def missing(self) -> list[str]:
        """Reference values that were asked for and not there."""
        return sorted(name for name, known in self.asked.items() if not known)


@dataclass
class _Trouble:
    count: int = 0
    until: float = 0.0

    def note(self, now: float, patience: int) -> None:
        self.count += 1
        if self.count >= patience:
            self.until = now + min(LONGEST, 0.25 * 2 ** (self.count - patience))


@dataclass
class Figures:
    """What happened, for metrics and tests."""

    started: int = 0
    killed: int = 0
    answered: int = 0
    broken: int = 0
    confinement: list[str] = field(default_factory=list)


_REASONS = {
    "conflict": "a rule has two values",
    "steps": "it takes too many steps",
    "size": "its answer is too long",
    "MemoryError": "it uses too much memory",
    "RecursionError": "it nests too deeply",
}


class Pool:
    """Evaluators for a broker. Safe to use from any thread. `close` ends the children.

    `clock` is what back-off goes by; deadlines are real time. `threads` is how many the callers have, who share them.
    """

    def __init__(
        self,
        size: int = 2,
        *,
        seconds: float = SECONDS,
        clock: Callable[[], float] = time.monotonic,
        threads: int | None = None,
    ) -> None:
        self._size, self._seconds, self._clock = max(1, size), seconds, clock
        self.askers = Askers(threads, self._size)
        self._free = threading.Condition()
        self._idle: list[Worker] = []
        self._busy: Counter[str] = Counter()
        self._waiting: Counter[str] = Counter()
        self._alive = 0
        self._closed = False
        self._start = _Trouble()
        self._troubles: dict[tuple[str, str], _Trouble] = {}
        self._compiled: OrderedDict[str, Compiled] = OrderedDict()
        self._compiling = threading.Lock()  # of the two tables below it, never held while something is compiled
        self._turns: dict[str, threading.Lock] = {}
        self._turned = threading.Condition(self._compiling)
        self._fresh: set[str] = set()  # groups whose policy is being compiled
        self._line: list[str] = []  # groups that wait for that, each once; a thread each, so a quarter of them at most
        self._longest_line = None if threads is None else max(1, threads // 4)
        self.figures = Figures()

    def compiled(self, text: str, group: str = "", *, own: bool = False) -> Compiled:
        """The plan of a policy that holds, made once for each text and kept; `Malformed`, `Crowded`."""
        digest = inputs.text_digest(text)
        with self._compiling:
            found = self._known(digest)
        if found is not None:
            return found
        with self.askers.one(group, own=own):
            return self._made(digest, text)

    def _made(self, digest: str, text: str) -> Compiled:
        with self._compiling:
            turn = self._turns.setdefault(digest, threading.Lock())
        try:
            with turn:  # of this text alone: one that is slow to compile keeps no other waiting
                with self._compiling:
                    found = self._known(digest)
                return found or self._kept(compile_policy(text))
        finally:
            with self._compiling:
                self._turns.pop(digest, None)

    def fresh(self, text: str, group: str = "") -> Compiled:
        """The plan of a policy that somebody tries or wants to set, never kept; `Malformed`.

        FRESH at a time, groups in the order in which they came. `Compiling` at once when one of this group is compiled
        or waits, or too many wait; after FRESH_SECONDS for who waited in vain.
        """
        with self._turned:
            found = self._compiled.get(inputs.text_digest(text))
            if found is not None:
                return found
            self._take_turn(group)
        try:
            return compile_policy(text)
        finally:
            with self._turned:
                self._fresh.discard(group)
                self._turned.notify_all()

    def _take_turn(self, group: str) -> None:
        """Wait for a turn at the compiler; called with the lock."""
        full = self._longest_line is not None and len(self._line) >= self._longest_line
        if group in self._fresh or group in self._line or (full and len(self._fresh) >= FRESH):
            raise Compiling
        deadline = time.monotonic() + FRESH_SECONDS
        self._line.append(group)
        try:
            while len(self._fresh) >= FRESH or self._line[0] != group:
                left = deadline - time.monotonic()
                if left <= 0 or self._closed:
                    raise Compiling
                self._turned.wait(left)
            self._fresh.add(group)
        finally:
            self._line.remove(group)
            self._turned.notify_all()  # the next one may have a turn as well

    def _known(self, digest: str) -> Compiled | None:
        found = self._compiled.get(digest)
        if found is not None:
            self._compiled.move_to_end(digest)
        return found

    def _kept(self, made: Compiled) -> Compiled:
        with self._compiling:
            self._compiled[made.digest] = made
            while len(self._compiled) > MAX_COMPILED:
                self._compiled.popitem(last=False)
        return made

    def evaluate(
        self,
        policy: Compiled,
        *,
        given: Any,
        data: dict[str, Any] | None = None,
        references: dict[str, Any] | None = None,
        rules: tuple[str, ...] | None = None,
        group: str = "",
        own: bool = False,
    ) -> Answer:
        """The values of `rules` (None: of all) for `input` = `given`.

        `Broken`; `Unavailable` when all are busy; `Crowded` when the group asks too much at once. With `own` it asks on
        a thread that doesn't count.
        """
        trouble = self._troubles.get((group, policy.digest))
        if trouble is not None and self._clock() < trouble.until:
            raise Broken("it broke its evaluator too often and is set aside for a moment")
        known = references or {}
        held = "refs:" + inputs.digest(known) if known else "refs:"
        documents = {"plan:" + policy.digest: policy.plan, held: known}
        question = {
            "plan": "plan:" + policy.digest,
            "refs": held,
            "rules": list(rules) if rules is not None else None,
            "input": given,
            "data": data or {},
        }
        with self.askers.one(group, own=own):
            found = self._asked(policy.digest, group, documents, question)
        if "error" in found:
            raise Broken(_REASONS.get(found["error"], "an error inside"), str(found.get("rule", "")))
        return Answer(
            found["values"], found["asked"], {k.removeprefix("g0.data.policy."): v for k, v in found["rows"].items()}
        )

    def _asked(self, digest: str, group: str, documents: dict[str, Any], question: dict[str, Any]) -> dict[str, Any]:
        worker = self._take(group)
        reason = "its evaluator broke down"
        try:
            found = worker.ask(documents, question, time.monotonic() + self._seconds)
        except TooLate:
            reason = f"it took longer than {self._seconds:g} seconds"
        except Ended:
            pass
        except Malformed as error:
            self._give(worker, good=False)
            raise Broken(str(error)) from None
        except BaseException:
            self._give(worker, good=False)
            raise
        else:
            self._give(worker, good=found.get("error") != "MemoryError")
            with self._free:
                self._troubles.pop((group, digest), None)
            return found
        self._give(worker, good=False)
        self._note((group, digest))
        raise Broken(reason)

    def _note(self, which: tuple[str, str]) -> None:
        with self._free:
            self.figures.broken += 1
            trouble = self._troubles.pop(which, None) or _Trouble()
            if len(self._troubles) >= 4 * MAX_COMPILED:
                self._troubles.pop(next(iter(self._troubles)), None)  # the one that was quiet for longest
            self._troubles[which] = trouble
            trouble.note(self._clock(), PATIENCE)

    def _take(self, group: str) -> Worker:
        """An evaluator of that group, alone for this thread."""
        deadline = time.monotonic() + WAIT_SECONDS
        with self._free:
            self._waiting[group] += 1
            try:
                found = self._chosen(group, deadline)
            finally:
                self._waiting[group] -= 1
                self._waiting += Counter()  # forgets groups without anybody
            self._busy[group] += 1
        if found is not None:
            return found
        try:
            return self._started(group)
        except BaseException:
            with self._free:
                self._left(group)
            raise

    def _chosen(self, group: str, deadline: float) -> Worker | None:
        """An idle evaluator, or None when there is room for a new one; called with the lock."""
        while True:
            if self._closed:
                raise Unavailable("the broker is stopping")
            if self._fair(group):
                for worker in [worker for worker in self._idle if not worker.usable]:
                    self._idle.remove(worker)
                    worker.kill()
                    self._alive -= 1
                found = next((worker for worker in self._idle if worker.group == group), None)
                if found is not None:
                    self._idle.remove(found)
                    return found
                if self._alive < self._size:
                    self._alive += 1
                    return None
                if self._idle:  # one of another group makes room
                    self._idle.pop(0).kill()
                    return None
            left = deadline - time.monotonic()
            if left <= 0:
                raise Unavailable("every policy evaluator is busy", hint="try again in a moment")
            self._free.wait(left)

    def _fair(self, group: str) -> bool:
        """Whether this group leaves an evaluator to others that wait."""
        others = any(count for name, count in self._waiting.items() if name != group)
        return not others or self._busy[group] < max(1, self._size - 1)

    def _left(self, group: str) -> None:
        self._busy[group] -= 1
        self._busy += Counter()
        self._free.notify_all()

    def _started(self, group: str) -> Worker:
        try:
            if self._clock() < self._start.until:
                raise Unavailable("policy evaluators do not start", hint="see the broker's memory and processes")
            worker = Worker(group)
        except BaseException:
            with self._free:
                self._alive -= 1
                if self._clock() >= self._start.until:
                    self._start.note(self._clock(), 1)
            raise
        with self._free:
            self._start = _Trouble()
            self.figures.started += 1
            self.figures.confinement = worker.confinement
        return worker

    def _give(self, worker: Worker, *, good: bool) -> None:
        kept = good and worker.usable and not self._closed
        if not kept:
            worker.kill()
        with self._free:
            if kept and self._closed:
                worker.kill()
                kept = False
            self.figures.answered += good
            self.figures.killed += not good
            if kept:
                self._idle.append(worker)
            else:
                self._alive -= 1
            self._left(worker.group)

    def pids(self) -> list[int]:
        """The idle children's process ids."""
        with self._free:
            return [worker.pid for worker in self._idle]

    def close(self) -> None:
        """End the children; questions under way end with their deadline."""
        with self._free:
            self._closed = True
            for worker in self._idle:
                worker.kill()
            self._alive -= len(self._idle)
            self._idle.clear()
            self._free.notify_all()
        with self._turned:
            self._turned.notify_all()
