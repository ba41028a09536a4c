"""Measurement: the register values that a launch is expected to show, computed before it happens."""

from __future__ import annotations

import msgspec


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """Register name → lower-case hex: `pcr4`, `pcr8`, `pcr9` on TPMs, `measurement` on SNP, `mrtd`, `rtmr1` on TDX."""

    tee: str
    values: dict[str, str]
