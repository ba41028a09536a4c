"""The evaluator's program: policies' plans and questions come in, values go out. It never sees a policy's text.

    {"keep": [name, document]}                              a plan ("plan:…") or reference values ("refs:…")
    {"forget": true}                                        all of them
    {"plan": name, "refs": name, "rules": […]|null, "input": …, "data": …}  → one answer

An answer is {"values": {rule: value}, "asked": {id: known}, "rows": {rule: line}} or {"error": kind, "rule": rule}.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from typing import Any

from casemate.drivers.rego.confine import confine
from casemate.policy.rego.machine import NONE, Run
from casemate.policy.rego.plan import Program
from casemate.policy.rego.values import Conflict, Exhausted, Undefined, plain

MEMORY = 256 << 20
CPU_SECONDS = 10
_MAX = 24 << 20
_FLOOR = 1


def main() -> None:
    """Serve until the broker closes the pipe."""
    sys.setrecursionlimit(6000)
    held = confine(MEMORY)
    reply = os.dup(1)
    _write(reply, {"ready": held})
    kept: dict[str, Any] = {}
    while (message := _read(0)) is not None:
        if "forget" in message:
            kept.clear()
        elif "keep" in message:
            name, document = message["keep"]
            kept[name] = Program(document) if name.startswith("plan:") else document
        else:
            _write(reply, _answer(message, kept))


def _answer(message: dict[str, Any], kept: dict[str, Any]) -> dict[str, Any]:
    spent = resource.getrusage(resource.RUSAGE_SELF)
    resource.setrlimit(resource.RLIMIT_CPU, (int(spent.ru_utime + spent.ru_stime) + CPU_SECONDS, -1))
    rule = ""
    try:
        program, references = kept[message["plan"]], kept[message["refs"]]
        run = Run(references)
        given, data = message["input"], {**message["data"], "reference": references}
        values: dict[str, Any] = {}
        for rule in message["rules"] or program.rules:
            value = program.rule(rule, run, given, data)
            if value is not NONE:
                values[rule] = plain(value)
        body = {"values": values, "asked": run.asked, "rows": run.rows}
        if len(json.dumps(body)) > _MAX - _FLOOR:
            return {"error": "size", "rule": rule}
    except Conflict:
        return {"error": "conflict", "rule": rule}
    except Exhausted:
        return {"error": "steps", "rule": rule}
    except (MemoryError, RecursionError, Undefined) as error:
        return {"error": type(error).__name__, "rule": rule}
    except Exception as error:  # noqa: BLE001 - a question of the wrong shape must not end the child
        return {"error": f"internal: {type(error).__name__}", "rule": rule}
    return body


def _read(place: int) -> Any:
    head = _exactly(place, 4)
    return None if head is None else json.loads(_exactly(place, int.from_bytes(head, "big")) or b"null")


def _exactly(place: int, size: int) -> bytes | None:
    found = bytearray()
    while len(found) < size:
        chunk = os.read(place, size - len(found))
        if not chunk:
            return None
        found += chunk
    return bytes(found)


def _write(place: int, message: Any) -> None:
    body = json.dumps(message, separators=(",", ":")).encode()
    view = memoryview(len(body).to_bytes(4, "big") + body)
    while view:
        view = view[os.write(place, view) :]


if __name__ == "__main__":
    main()
