"""The machine that evaluates a plan: frames, functions, what a run may spend and what it has asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from casemate.policy.rego.values import Exhausted, Undefined

MAX_STEPS = 2_000_000
MAX_CALLS = 60
PACKAGE = "policy"
HOST = "g0.data.policy.query_reference_value"
STOP, RETURN = 1, 2
NONE = type("None_", (), {"__repr__": lambda _: "undefined"})()  # a local without a value

Frame = list[Any]
Step = Callable[[Frame], int | None]
Operand = Callable[[Frame], Any]


class Run:
    """One evaluation: what it may still spend, what it asked for, what its rules gave."""

    def __init__(self, references: dict[str, Any]) -> None:
        self.references = references
        self.steps = MAX_STEPS
        self.depth = 0
        self.asked: dict[str, bool] = {}  # reference value → whether there was one
        self.memo: dict[tuple[str, int, int], Any] = {}
        self.rows: dict[str, int] = {}  # rule → the line of the body that gave its value
        self.kept: list[Any] = []

    def spend(self, count: int = 1) -> None:
        """Take `count` steps."""
        self.steps -= count
        if self.steps < 0:
            raise Exhausted


class Function:
    """A rule or function of the policy."""

    def __init__(self, name: str, params: list[int], result: int, width: int) -> None:
        self.name, self.params, self.result, self.width = name, params, result, width
        self.blocks: list[Step] = []

    def call(self, run: Run, arguments: list[Any]) -> Any:
        """The value for these arguments, or `Undefined`."""
        memo = (self.name, id(arguments[0]), id(arguments[1])) if len(arguments) == 2 else None
        if memo is not None and memo in run.memo:
            found = run.memo[memo]
        else:
            found = self._run(run, arguments)
            if memo is not None:
                run.memo[memo] = found
                run.kept.append(arguments)  # an id is of use only while its object lives
        if found is NONE:
            raise Undefined
        return found

    def _run(self, run: Run, arguments: list[Any]) -> Any:
        if run.depth >= MAX_CALLS:
            raise Exhausted
        frame: Frame = [NONE] * self.width
        frame[-1] = run
        for place, value in zip(self.params, arguments, strict=True):
            frame[place] = value
        run.depth += 1
        try:
            for block in self.blocks:
                if block(frame) == RETURN:
                    return frame[self.result]
        finally:
            run.depth -= 1
        return NONE


def reference(run: Run, name: Any) -> Any:
    """`query_reference_value(id)`: the value, or undefined, which is noted."""
    known = isinstance(name, str) and name in run.references
    run.asked[str(name)[:256]] = known
    if not known:
        raise Undefined
    return run.references[name]
