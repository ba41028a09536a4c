"""The error tree and the findings that explain a refusal.

    CasemateError            anything a door may print as one sentence
    ├─ Malformed             bytes or documents that break their format (a parser raises only this)
    ├─ Refused               a rule said no; carries every failed rule as a Finding
    ├─ Unusable              the input cannot be judged (something is missing); exit code 2 at the doors
    └─ Unavailable           a peer, device or tool did not answer; trying again may help

Standard: a refusal names each failed rule with what was expected, what was found and what to do (RFC 9334's
"appraisal", made explainable).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Self


class Finding(NamedTuple):
    """One rule and what came of it.

    `rule` is a stable dotted name (``tpm.quote.nonce``); `expected` and `found` are short printable values and never
    secrets; `hint` says what the reader can do. `ok` is false for a failed rule. Each verification makes a dozen, so
    this is the kind of object that is made fastest without a library.
    """

    rule: str
    expected: str
    found: str
    hint: str = ""
    ok: bool = False

    def as_json(self) -> dict[str, str]:
        """The finding in the shape of ``--json`` and of the broker's ``reasons[]``."""
        return {
            "rule": self.rule,
            "result": "pass" if self.ok else "fail",
            "expected": self.expected,
            "found": self.found,
            "hint": self.hint,
        }


@dataclass(frozen=True)
class Problem:
    """One place in a document that breaks its format: `path` as in ``containers[0].image``, `line` 0 if unknown."""

    path: str
    message: str
    hint: str = ""
    line: int = 0

    def __str__(self) -> str:
        where = f"line {self.line}, " if self.line else ""
        return f"{where}{self.path or 'document'}: {self.message}"

    def as_json(self) -> dict[str, str | int]:
        """The problem in the shape of ``--json``."""
        return {"path": self.path, "message": self.message, "hint": self.hint, "line": self.line}


class CasemateError(Exception):
    """Base of every error that Casemate raises on purpose. `hint` says what the reader can do."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class Malformed(CasemateError):
    """Bytes or a document break their format. Raised by parsers, and the only error a parser raises.

    `problems` lists every place that is wrong, where the parser looks for all of them.
    """

    exit_code = 2

    def __init__(self, message: str, *, hint: str = "", problems: Iterable[Problem] = ()) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__(message, hint=hint or next((p.hint for p in self.problems if p.hint), ""))


class Unusable(CasemateError):
    """The input cannot be judged because something is missing or of the wrong kind."""

    exit_code = 2


class Unavailable(CasemateError):
    """A peer, device or tool did not answer as it should; trying again may help."""


class Refused(CasemateError):
    """A rule said no. Carries every failed rule, not only the first."""

    def __init__(self, findings: Iterable[Finding], message: str = "") -> None:
        self.findings: tuple[Finding, ...] = tuple(findings)
        failed = [f for f in self.findings if not f.ok]
        text = message or "refused: " + "; ".join(f"{f.rule}: expected {f.expected}, found {f.found}" for f in failed)
        super().__init__(text, hint=next((f.hint for f in failed if f.hint), ""))

    @classmethod
    def because(cls, rule: str, *, expected: object, found: object, hint: str = "") -> Self:
        """A refusal with a single finding."""
        return cls([Finding(rule, str(expected), str(found), hint)])
