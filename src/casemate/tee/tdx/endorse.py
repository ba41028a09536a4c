"""Gathering the vendor's statements about TDX evidence: comes with the TDX verifier."""

from __future__ import annotations

from collections.abc import Callable

from casemate.errors import Unusable
from casemate.schema.endorsements import Endorsements
from casemate.schema.evidence import Evidence


def endorse(evidence: Evidence, fetch: Callable[[str], bytes]) -> Endorsements:
    """Not there yet."""
    raise Unusable("TDX evidence can't be endorsed yet", hint="it comes with the TDX verifier")
