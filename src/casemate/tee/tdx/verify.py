"""Judging TDX evidence: to come. Until then every such evidence is refused."""

from __future__ import annotations

from datetime import datetime

from casemate.errors import Unusable
from casemate.schema.claims import Claims
from casemate.schema.endorsements import Endorsements
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request


def verify(evidence: Evidence, endorsements: Endorsements, request: Request, now: datetime) -> Claims:
    """Not there yet."""
    raise Unusable("TDX evidence can't be verified yet", hint="this release verifies TPM evidence")
