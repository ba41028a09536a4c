"""Cases beside a policy: what it must answer, written down, and whether it does.

kind: attestation | resource
policy: NAME.rego                     beside the file; the command line may name another
references: {ID: VALUE}               for all cases; a case may have its own
cases:
  - name: …
    input: {…}
    path: repo/type/tag               for a resource policy; plugin and query are optional
    expect: {status, vector: {claim: n}, allow, rules: {name: value}, missing: [ID], error: true}
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from casemate.broker import replay
from casemate.drivers.rego import Compiled, Pool
from casemate.errors import Malformed
from casemate.policy.rego import inputs


class Expected(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an answer must show; members that are absent may be anything."""

    status: str | None = None
    vector: dict[str, int] = {}
    allow: bool | None = None
    rules: dict[str, Any] = {}
    missing: tuple[str, ...] | None = None
    error: bool = False


class Case(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One question with its answer."""

    name: str
    expect: Expected
    input: Any = {}
    path: str = ""
    plugin: str = "resource"
    query: dict[str, str] = {}
    references: dict[str, Any] | None = None


class Cases(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of cases."""

    kind: Literal["attestation", "resource"]
    cases: tuple[Case, ...]
    policy: str = ""
    references: dict[str, Any] = {}


def read(document: Any, name: str) -> Cases:
    """Cases from plain data; `Malformed` names the place of the error."""
    try:
        found = msgspec.convert(document, Cases)
    except msgspec.ValidationError as error:
        raise Malformed(f"{name}: {error}") from error
    if not found.cases:
        raise Malformed(f"{name}: no cases")
    return found


def run(pool: Pool, policy: Compiled, cases: Cases) -> list[dict[str, Any]]:
    """For each case its name and what is not as expected (`wrong`, empty when all is well)."""
    found = []
    for case in cases.cases:
        told = replay.explained(
            pool,
            policy,
            cases.kind,
            given=inputs.bounded(case.input),
            data=inputs.resource(case.plugin, case.path, case.query) if cases.kind == "resource" else {},
            references=cases.references if case.references is None else case.references,
        )
        found.append({"name": case.name, "wrong": _wrong(case.expect, told)})
    return found


def _wrong(expected: Expected, told: dict[str, Any]) -> list[str]:
    if "error" in told or expected.error:
        ok = ("error" in told) == expected.error
        return [] if ok else [told.get("error", "an error was expected, there is an answer")]
    result = told["result"]
    rules = {rule["rule"]: rule for rule in told["rules"]}
    wanted = [("status", expected.status, result.get("status")), ("allow", expected.allow, result.get("allow"))]
    pairs: list[tuple[str, Any, Any]] = [(name, want, got) for name, want, got in wanted if want is not None]
    pairs += [(claim, want, result.get("vector", {}).get(claim)) for claim, want in expected.vector.items()]
    pairs += [(f"rule {name}", want, rules.get(name, {}).get("value")) for name, want in expected.rules.items()]
    if expected.missing is not None:
        pairs.append(("missing reference values", sorted(expected.missing), told["missing"]))
    return [f"{name}: expected {want!r}, found {got!r}" for name, want, got in pairs if want != got]
