"""Obtaining TDX evidence in the guest: comes with the TDX verifier."""

from __future__ import annotations

from casemate.errors import Unusable
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request


def collect(request: Request) -> Evidence:
    """Not there yet."""
    raise Unusable("TDX evidence can't be collected yet", hint="it comes with the TDX verifier")
