"""What can be said of a policy before anybody is judged by it: errors keep it from being set, warnings are advice."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Literal, NamedTuple

from casemate.policy.rego.plan import Program

ATTESTATION, RESOURCE = "attestation", "resource"
ENTRIES = {ATTESTATION: ("trust_claims", "extensions"), RESOURCE: ("allow",)}
_NEEDED = {ATTESTATION: "trust_claims", RESOURCE: "allow"}
_DOCUMENTS = ("plugin", "resource-path", "query", "reference", "policy")
_COMMENT = re.compile(r"#[^\n]*")
_NEGATED = re.compile(r"\bnot\b[^\n]*\bquery_reference_value\b")
_OPEN = re.compile(r"^\s*default\s+allow\s*:?=\s*true\b", re.MULTILINE)
_DATA = re.compile(r"\bdata(?:\.([a-z_]+)|\[\"([^\"]+)\"\])")


class Remark(NamedTuple):
    """One thing about a policy; `line` is 0 where it has none."""

    level: Literal["error", "warning"]
    message: str
    line: int = 0


def lint(text: str, program: Program, kind: str) -> list[Remark]:
    """Missing entry points, rules that nobody asks for, and habits that let the wrong guest pass."""
    bare = _COMMENT.sub("", text)
    found = [*_entries(program, kind), *_idle(program, kind)]
    found += [
        Remark("warning", "`not` turns a missing reference value into a pass", line) for line in _lines(bare, _NEGATED)
    ]
    if kind == RESOURCE:
        found += [Remark("warning", "everything is allowed that no rule forbids", line) for line in _lines(bare, _OPEN)]
    found += _documents(bare)
    return sorted(found, key=lambda remark: (remark.level != "error", remark.line))


def errors(remarks: list[Remark]) -> list[Remark]:
    """Those that keep a policy from being set."""
    return [remark for remark in remarks if remark.level == "error"]


def _entries(program: Program, kind: str) -> list[Remark]:
    wanted = _NEEDED[kind]
    if wanted in program.rules:
        return []
    near = get_close_matches(wanted, program.rules, n=1)
    hint = f"; is `{near[0]}` meant to be it?" if near else ""
    for other, rule in _NEEDED.items():
        if rule in program.rules:
            hint = f"; is it one of --kind {other}?"
    return [Remark("error", f"the rule `{wanted}` is missing, so as {kind} policy it says nothing{hint}")]


def _idle(program: Program, kind: str) -> list[Remark]:
    head = "g0.data.policy."
    used, waiting = set(), [head + name for name in ENTRIES[kind]]
    while waiting:
        name = waiting.pop()
        if name not in used:
            used.add(name)
            waiting += program.calls.get(name, ())
    idle = [name for name in program.rules if head + name not in used]
    return [Remark("warning", f"the rule `{name}` is asked for by nobody") for name in idle]


def _documents(text: str) -> list[Remark]:
    found = []
    for match in _DATA.finditer(text):
        name = match[1] or match[2]
        if name not in _DOCUMENTS:
            line = text.count("\n", 0, match.start()) + 1
            found.append(Remark("warning", f"`data.{name[:40]}` is always undefined here", line))
    return found


def _lines(text: str, pattern: re.Pattern[str]) -> list[int]:
    return [text.count("\n", 0, match.start()) + 1 for match in pattern.finditer(text)]
