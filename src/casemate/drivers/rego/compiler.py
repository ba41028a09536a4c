"""The compiler's program: one policy on standard input, its plan or its errors on standard output, then the end.

rego-cpp reads the policy here and nowhere else: texts that it takes for valid can crash it.
"""

from __future__ import annotations

import json
import os
import re
import sys
import sysconfig
from pathlib import Path
from typing import Any

from casemate.drivers.rego.confine import confine, watch

MEMORY = 512 << 20
CPU_SECONDS = 10
MAX_PLAN = 16 << 20
# `query_reference_value` is a function of the evaluator; the compiler must only know its name. The documents stand for
# those that come with each question: the compiler must not take their absence for a fact.
HOST = "package policy\nimport rego.v1\nquery_reference_value(id) := data.reference[id]\n"
DOCUMENTS = {"reference": {}, "plugin": "", "resource-path": [], "query": {}}
_ERROR = re.compile(r"\(error \d+:(?:policy)?\|(\d+)\|\d+\s*\(errormsg \d+:(.*?)\)\n", re.DOTALL)
_LOOSE = re.compile(r"\(errormsg \d+:(.*?)\)\n", re.DOTALL)
_PACKAGE = re.compile(r"^\s*package\s+([A-Za-z0-9_.\[\]\"]+)", re.MULTILINE)


def main() -> None:
    """Compile one policy."""
    import regopy  # type: ignore[import-untyped] # it comes without types

    folder, reply = str(Path.cwd()), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # rego-cpp prints to standard output
    libraries = {sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    watch(MEMORY)
    confine(MEMORY, cpu=CPU_SECONDS, files=MAX_PLAN, writable=folder, readable=tuple(libraries))
    text = sys.stdin.buffer.read().decode("utf-8")
    made = _compiled(regopy, text, folder)
    with os.fdopen(reply, "wb") as out:
        out.write(made)


def _compiled(regopy: Any, text: str, folder: str) -> bytes:
    package = _PACKAGE.search(text)
    if package is None or package[1] != "policy":
        found = package[1][:60] if package else "none"
        return _told([{"line": 1, "message": f"`package policy` is wanted, found {found}"}])
    engine = regopy.Interpreter()
    try:
        engine.add_module("host", HOST)
        engine.add_module("policy", text)
        engine.add_data(DOCUMENTS)
        bundle = engine.build(None, ["policy"])
        if not bundle.ok():
            return _told(_errors(str(bundle.node()), text))
        engine.save_bundle(folder + "/made", bundle)
    except regopy.RegoError as error:
        return _told(_errors(str(error), text))
    except ValueError:
        return _told([{"line": 0, "message": "it calls a function that does not exist, or a rule needs itself"}])
    return b'{"plan":' + Path(folder, "made", "plan.json").read_bytes() + b"}"


def _told(errors: list[dict[str, Any]]) -> bytes:
    return json.dumps({"errors": errors}).encode()


def _errors(told: str, text: str) -> list[dict[str, Any]]:
    raw = text.encode()
    found = [{"line": raw[: int(at)].count(b"\n") + 1, "message": what[:300]} for at, what in _ERROR.findall(told)]
    return found[:20] or [{"line": 0, "message": (_LOOSE.findall(told) or ["the compiler refuses it"])[0][:300]}]


if __name__ == "__main__":
    main()
