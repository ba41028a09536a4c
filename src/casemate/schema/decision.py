"""Decision: what appraisal says of claims, with every rule it applied. Only an allowed one releases a key."""

from __future__ import annotations

import msgspec

from casemate.errors import Finding, Refused


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """All findings of one appraisal, passed and failed; allowed when there is at least one and none failed."""

    findings: tuple[Finding, ...]

    @property
    def allowed(self) -> bool:
        """True when at least one rule was applied and none failed."""
        return bool(self.findings) and all(f.ok for f in self.findings)

    def demand(self) -> None:
        """Raise `Refused` with every failed rule unless allowed."""
        if not self.allowed:
            raise Refused([f for f in self.findings if not f.ok])
