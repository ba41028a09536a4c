"""Measurement: the register values that a launch is expected to show, computed before it happens."""

from __future__ import annotations

import msgspec

from casemate.errors import Finding


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """Register name → lower-case hex: `pcr4`, `pcr8`, `pcr9` on TPMs, `measurement` on SNP, `mrtd`, `rtmr1` on TDX.

    `findings` account for an event log that came with the launch; a failed one says why a register is left out.
    """

    tee: str
    values: dict[str, str]
    findings: tuple[Finding, ...] = ()
