"""What came of a verification: a verdict with every rule, as a value, as JSON, as a token."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from casemate.errors import Finding
from casemate.schema.claims import Claims

ACCEPTED, REFUSED, UNUSABLE = "accepted", "refused", "unusable"
NOT_FRESH = "freshness was not checked: give --report-data with what the evidence was asked for"


@dataclass(frozen=True)
class Result:
    """`verdict` is `accepted`, `refused` or `unusable`. `claims` are there when the evidence is genuine.

    `devices` are the claims of devices whose evidence came along. `checks` are all rules that were applied, in order:
    the room's, the policy's, the reference values'. `reason` and `hint` say in words why an input is unusable. `notes`
    are for the reader: what was not checked, what was not used; `unused` names the files that nobody needed.
    """

    verdict: str
    at: datetime
    tee: str = ""
    claims: Claims | None = None
    checks: tuple[Finding, ...] = ()
    devices: tuple[Claims, ...] = ()
    used: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    reason: str = ""
    hint: str = ""

    @property
    def failed(self) -> tuple[Finding, ...]:
        """The rules that said no."""
        return tuple(finding for finding in self.checks if not finding.ok)

    @property
    def valid_until(self) -> datetime | None:
        """When the first of all claims ends; None where none has an end."""
        ends = [part.valid_until for part in self._parts if part.valid_until is not None]
        return min(ends) if ends else None

    @property
    def fresh(self) -> bool:
        """Whether every part answered what it was asked for."""
        return bool(self._parts) and all(part.fresh for part in self._parts)

    @property
    def _parts(self) -> tuple[Claims, ...]:
        return (self.claims, *self.devices) if self.claims else ()

    @property
    def exit_code(self) -> int:
        """0 accepted, 1 refused, 2 unusable."""
        return {ACCEPTED: 0, REFUSED: 1}.get(self.verdict, 2)


def as_json(result: Result) -> dict[str, Any]:
    """The shape of `casemate verify --json`, which is also the refusal report."""
    claims = result.claims
    found: dict[str, Any] = {
        "verdict": result.verdict,
        "tee": result.tee or None,
        "claims": _claims(claims) if claims else {},
        "checks": [finding.as_json() for finding in result.checks],
        "valid_until": _moment(result.valid_until),
        "at": _moment(result.at),
        "freshness": "checked" if result.fresh else "not checked",
        "devices": [_claims(device) for device in result.devices],
        "files": list(result.used),
        "unused": list(result.unused),
        "notes": list(result.notes),
    }
    return found | ({"error": result.reason, "hint": result.hint} if result.verdict == UNUSABLE else {})


def _claims(claims: Claims) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(claims, str_keys=True)
    for name in ("checks", "cautions"):
        found.pop(name)
    found["cautions"] = [finding.rule for finding in claims.cautions]
    found["valid_until"] = _moment(claims.valid_until)
    return found


def _moment(value: datetime | None) -> str | None:
    return value.isoformat().replace("+00:00", "Z") if value else None
