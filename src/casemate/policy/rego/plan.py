"""Evaluation of OPA's intermediate representation (openpolicyagent.org/docs/ir), with a bound on its steps.

Each statement becomes a function of the frame (the list of locals). It returns None to go on, `STOP` when its block is
undefined, `RETURN` when the function is done. Two things differ from OPA on purpose: numbers, strings and so on compare
with `<` and `>` within their own type alone, otherwise the comparison is undefined; and `query_reference_value` of an
unknown name is undefined, so that no comparison with a missing reference value passes.
"""

from __future__ import annotations

import json
from typing import Any

from casemate.errors import Malformed
from casemate.policy.rego import builtins
from casemate.policy.rego.machine import NONE, PACKAGE, Function, Run
from casemate.policy.rego.statements import Reader
from casemate.policy.rego.values import Undefined


class Program:
    """A compiled policy. `functions` by their full name, `rules` those of package `policy` without arguments."""

    def __init__(self, plan: dict[str, Any]) -> None:
        try:
            self._read(plan)
        except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
            raise Malformed(f"policy plan: {type(error).__name__}") from error

    def _read(self, plan: dict[str, Any]) -> None:
        static = plan["static"]
        self.strings = [_string(item["value"]) for item in static.get("strings") or ()]
        self.numbers = [str(item["value"]) for item in static.get("strings") or ()]
        self.needs = [str(item["name"]) for item in static.get("builtin_funcs") or ()]
        missing = [name for name in self.needs if name not in builtins.TABLE]
        if missing:
            raise Malformed(
                f"the policy calls {', '.join(missing)[:200]}, which this broker does not have",
                hint="see the list in docs/how-to/policies.md",
            )
        given = plan["funcs"]["funcs"]
        self.width = 2 + max([0, *_locals(given)])
        self.functions = {f["name"]: Function(f["name"], f["params"], f["return"], self.width) for f in given}
        by_path = {tuple(f["path"]): f["name"] for f in given}
        self.paths = {path: self.functions[name] for path, name in by_path.items()}
        reader = Reader(self)
        for f in given:
            self.functions[f["name"]].blocks = reader.function(f["name"], f)
        _demand_order(reader.calls)
        self.calls = reader.calls
        self.rules = sorted(
            ".".join(f["path"][2:]) for f in given if f["path"][:2] == ["g0", PACKAGE] and len(f["params"]) == 2
        )

    def rule(self, name: str, run: Run, given: Any, data: Any) -> Any:
        """The value of a rule of package `policy`, `NONE` when it is undefined; `Conflict`, `Exhausted`."""
        function = self.functions.get(f"g0.data.{PACKAGE}.{name}")
        if function is None:
            return NONE
        try:
            return function.call(run, [given, data])
        except Undefined:
            return NONE


def _demand_order(calls: dict[str, set[str]]) -> None:
    """`Malformed` when a rule needs itself."""
    waiting = dict(calls)
    while waiting:
        done = [name for name, needs in waiting.items() if not needs & waiting.keys()]
        if not done:
            shown = sorted(name.removeprefix("g0.data.policy.") for name in waiting)[:5]
            raise Malformed("policy: rules need themselves: " + ", ".join(shown)[:200])
        for name in done:
            del waiting[name]


def _string(raw: str) -> str:
    """A string of the plan. rego-cpp writes some with their quotes; within the others a quote is always escaped."""
    found = json.loads(raw if raw.startswith('"') else f'"{raw}"', strict=False)
    if not isinstance(found, str):
        raise TypeError
    return found


def _locals(node: Any) -> list[int]:
    """Every local that a plan names."""
    found: list[int] = []
    stack = [node]
    while stack:
        item = stack.pop()
        if isinstance(item, list):
            found += [n for n in item if isinstance(n, int)]
            stack += [n for n in item if not isinstance(n, int)]
        elif isinstance(item, dict):
            found += [v for k, v in item.items() if k in _LOCAL_FIELDS and type(v) is int]
            if item.get("type") == "local":
                found.append(item["value"])
            stack += [v for v in item.values() if isinstance(v, dict | list)]
    return found


_LOCAL_FIELDS = frozenset(
    ("target", "source", "array", "object", "set", "key", "value", "result", "return", "local", "a", "b")
)
