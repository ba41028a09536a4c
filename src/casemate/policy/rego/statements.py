"""The statements of OPA's intermediate representation, each as a function of the frame."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from casemate.errors import Malformed
from casemate.policy.rego import builtins, strings
from casemate.policy.rego.machine import HOST, NONE, RETURN, STOP, Frame, Function, Operand, Step, reference
from casemate.policy.rego.values import Conflict, Set, Undefined, dot, equal, key_of, pairs, value_of

_LOADED = strings.__name__  # its functions are in the table of `builtins`
_MEMBERS: dict[str, Callable[[Any], bool]] = {
    "IsArrayStmt": lambda value: type(value) is list,
    "IsObjectStmt": lambda value: type(value) is dict,
    "IsSetStmt": lambda value: type(value) is Set,
}
_EMPTY: dict[str, Callable[[], Any]] = {
    "MakeArrayStmt": list,
    "MakeObjectStmt": dict,
    "MakeSetStmt": Set,
    "MakeNullStmt": lambda: None,
}


class Names(Protocol):
    """What statements refer to."""

    strings: list[str]
    numbers: list[str]
    functions: dict[str, Function]
    paths: dict[tuple[str, ...], Function]


class Reader:
    """Makes functions of a plan's statements."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self._name, self._result, self._row = "", -1, 0
        self.calls: dict[str, set[str]] = {}  # function → the functions that it calls

    def function(self, name: str, given: dict[str, Any]) -> list[Step]:
        """The blocks of a rule or function."""
        self._name, self._result, self._row = name, given["return"], 0
        return [self.block(block) for block in given["blocks"]]

    def block(self, block: dict[str, Any]) -> Step:
        """A block: its statements in order until one is undefined."""
        steps = tuple(self.statement(item["type"], item["stmt"]) for item in block["stmts"] or ())
        count = len(steps) + 1

        def run(frame: Frame) -> int | None:
            frame[-1].spend(count)
            try:
                for step in steps:
                    signal = step(frame)
                    if signal is not None:
                        return signal
            except Undefined:
                return STOP
            return None

        return run

    def statement(self, kind: str, s: dict[str, Any]) -> Step:
        """One statement."""
        self._row = s.get("row", self._row)
        if kind in _EMPTY:
            return self._make(_EMPTY[kind], s["target"])
        if kind in _MEMBERS:
            return self._is(_MEMBERS[kind], self.operand(s["source"]))
        made: Callable[[dict[str, Any]], Step] | None = getattr(self, "_" + kind, None)
        if made is None:
            raise Malformed(f"the policy needs {kind[:40]}, which this broker does not have")
        return made(s)

    def operand(self, given: Any) -> Operand:
        """A value of a statement: a local, a string or a boolean."""
        if isinstance(given, int):
            return self._local(given)
        kind, value = given["type"], given["value"]
        if kind == "local":
            return self._local(value)
        constant = self.names.strings[value] if kind == "string_index" else bool(value)
        return lambda frame: constant

    @staticmethod
    def _local(place: int) -> Operand:
        def read(frame: Frame) -> Any:
            found = frame[place]
            if found is NONE:
                raise Undefined
            return found

        return read

    @staticmethod
    def _make(kind: Callable[[], Any], target: int) -> Step:
        def step(frame: Frame) -> None:
            frame[target] = kind()

        return step

    @staticmethod
    def _is(test: Callable[[Any], bool], source: Operand) -> Step:
        return lambda frame: None if test(source(frame)) else STOP

    def _NopStmt(self, s: dict[str, Any]) -> Step:
        return lambda frame: None

    def _AssignVarStmt(self, s: dict[str, Any]) -> Step:
        source, target = self.operand(s["source"]), s["target"]

        def step(frame: Frame) -> None:
            frame[target] = source(frame)

        return step

    def _AssignVarOnceStmt(self, s: dict[str, Any]) -> Step:
        source, target = self.operand(s["source"]), s["target"]
        name, row = self._name if target == self._result else "", self._row + 1

        def step(frame: Frame) -> None:
            value = source(frame)
            if name:
                frame[-1].rows[name] = row
            if frame[target] is not NONE and not equal(frame[target], value):
                raise Conflict
            frame[target] = value

        return step

    def _AssignIntStmt(self, s: dict[str, Any]) -> Step:
        value, target = int(s["value"]), s["target"]
        return self._make(lambda: value, target)

    _MakeNumberIntStmt = _AssignIntStmt

    def _MakeNumberRefStmt(self, s: dict[str, Any]) -> Step:
        number = builtins.number(self.names.numbers[s["index"]])
        return self._make(lambda: number, s["target"])

    def _ResetLocalStmt(self, s: dict[str, Any]) -> Step:
        return self._make(lambda: NONE, s["target"])

    def _IsDefinedStmt(self, s: dict[str, Any]) -> Step:
        place = s["source"]
        return lambda frame: STOP if frame[place] is NONE else None

    def _IsUndefinedStmt(self, s: dict[str, Any]) -> Step:
        place = s["source"]
        return lambda frame: None if frame[place] is NONE else STOP

    def _EqualStmt(self, s: dict[str, Any]) -> Step:
        left, right = self.operand(s["a"]), self.operand(s["b"])
        return lambda frame: None if equal(left(frame), right(frame)) else STOP

    def _NotEqualStmt(self, s: dict[str, Any]) -> Step:
        left, right = self.operand(s["a"]), self.operand(s["b"])
        return lambda frame: STOP if equal(left(frame), right(frame)) else None

    def _DotStmt(self, s: dict[str, Any]) -> Step:
        source, key, target = self.operand(s["source"]), self.operand(s["key"]), s["target"]

        def step(frame: Frame) -> None:
            frame[target] = dot(source(frame), key(frame))

        return step

    def _LenStmt(self, s: dict[str, Any]) -> Step:
        source, target = self.operand(s["source"]), s["target"]

        def step(frame: Frame) -> None:
            frame[target] = builtins.TABLE["count"](source(frame))

        return step

    def _ArrayAppendStmt(self, s: dict[str, Any]) -> Step:
        array, value = self.operand(s["array"]), self.operand(s["value"])
        return lambda frame: array(frame).append(value(frame))

    def _SetAddStmt(self, s: dict[str, Any]) -> Step:
        held, value = self.operand(s["set"]), self.operand(s["value"])
        return lambda frame: held(frame).add(value(frame))

    def _ObjectInsertStmt(self, s: dict[str, Any], once: bool = False) -> Step:
        held, key, value = self.operand(s["object"]), self.operand(s["key"]), self.operand(s["value"])

        def step(frame: Frame) -> None:
            place, new = key_of(key(frame)), value(frame)
            found = held(frame)
            if once and place in found and not equal(found[place], new):
                raise Conflict
            found[place] = new

        return step

    def _ObjectInsertOnceStmt(self, s: dict[str, Any]) -> Step:
        return self._ObjectInsertStmt(s, once=True)

    def _ObjectMergeStmt(self, s: dict[str, Any]) -> Step:
        left, right, target = self.operand(s["a"]), self.operand(s["b"]), s["target"]

        def step(frame: Frame) -> None:
            frame[target] = builtins.merged(right(frame), left(frame))

        return step

    def _ReturnLocalStmt(self, s: dict[str, Any]) -> Step:
        return lambda frame: RETURN

    def _ResultSetAddStmt(self, s: dict[str, Any]) -> Step:
        return lambda frame: None

    def _BlockStmt(self, s: dict[str, Any]) -> Step:
        blocks = tuple(self.block(block) for block in s["blocks"] or ())

        def step(frame: Frame) -> int | None:
            for block in blocks:
                if block(frame) == RETURN:
                    return RETURN
            return None

        return step

    def _NotStmt(self, s: dict[str, Any]) -> Step:
        block = self.block(s["block"])
        return lambda frame: None if block(frame) == STOP else STOP

    def _ScanStmt(self, s: dict[str, Any]) -> Step:
        source, key, value = self.operand(s["source"]), s["key"], s["value"]
        block = self.block(s["block"])

        def step(frame: Frame) -> int | None:
            for index, item in pairs(source(frame)):
                frame[key], frame[value] = index, item
                if block(frame) == RETURN:
                    return RETURN
            return None

        return step

    def _WithStmt(self, s: dict[str, Any]) -> Step:
        place, value = s["local"], self.operand(s["value"])
        path = [self.names.strings[index] for index in s["path"] or ()]
        block = self.block(s["block"])

        def step(frame: Frame) -> int | None:
            before = frame[place]
            frame[place] = _put(before, path, value(frame))
            try:
                return block(frame)
            finally:
                frame[place] = before

        return step

    def _CallStmt(self, s: dict[str, Any]) -> Step:
        name, target = s["func"], s["result"]
        arguments = tuple(self.operand(item) for item in s["args"] or ())
        if name == HOST:
            return self._hosted(arguments[2], target)
        function = self.names.functions.get(name)
        if function is None:
            if name not in builtins.TABLE:
                raise Malformed(f"the policy calls {name.removeprefix('g0.data.')[:80]}, which does not exist")
            return self._native(builtins.TABLE[name], arguments, target)
        self.calls.setdefault(self._name, set()).add(name)

        def step(frame: Frame) -> None:
            frame[target] = function.call(frame[-1], [item(frame) for item in arguments])

        return step

    @staticmethod
    def _native(act: Callable[..., Any], arguments: tuple[Operand, ...], target: int) -> Step:
        def step(frame: Frame) -> None:
            given = [item(frame) for item in arguments]
            try:
                frame[target] = act(*given)
            except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError):
                raise Undefined from None  # OPA: a function that cannot take its arguments is undefined

        return step

    @staticmethod
    def _hosted(name: Operand, target: int) -> Step:
        def step(frame: Frame) -> None:
            frame[target] = reference(frame[-1], name(frame))

        return step

    def _CallDynamicStmt(self, s: dict[str, Any]) -> Step:
        path = tuple(self.operand(item) for item in s["path"] or ())
        arguments = tuple(
            self._local(item) if isinstance(item, int) else self.operand(item) for item in s["args"] or ()
        )
        target = s["result"]

        def step(frame: Frame) -> None:
            function = self.names.paths.get(tuple(value_of(item(frame)) for item in path))
            if function is None:
                raise Undefined
            frame[target] = function.call(frame[-1], [item(frame) for item in arguments])

        return step


def _put(held: Any, path: list[str], value: Any) -> Any:
    """`held` with `value` at `path`; nothing that exists is changed."""
    if not path:
        return value
    inner = held.get(path[0], NONE) if type(held) is dict else NONE
    return {**(held if type(held) is dict else {}), path[0]: _put(inner, path[1:], value)}
