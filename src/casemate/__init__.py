"""Casemate: ordinary OCI containers inside hardware trusted execution environments, checkable by anyone.

The package is a house of floors; ARCHITECTURE.md has the picture. Imports point down only.

    claims = casemate.verify(evidence, endorsements, request, now)      # genuine, or Refused with every failed rule
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from casemate.schema.claims import Claims
    from casemate.schema.endorsements import Endorsements
    from casemate.schema.evidence import Evidence
    from casemate.schema.request import Request

__version__ = "0.1.0"
__all__ = ["__version__", "verify"]


def verify(evidence: Evidence, endorsements: Endorsements, request: Request, now: datetime) -> Claims:
    """Judge one attester's evidence with the room of its TEE, offline, at the time `now` (timezone-aware).

    Returns claims when the evidence is genuine and carries what `request` asked for. Raises `Refused` with every failed
    rule, `Unusable` when something is missing without which nobody can judge (an unknown TEE, absent collateral), and
    `Malformed` when it breaks its format. Genuine is not yet acceptable: `claims.cautions` and `claims.tcb_status` are
    for a policy (`casemate.policy.platform.judge` has a safe default), measurements for reference values.
    """
    from casemate.tee import room

    return room(evidence.tee).verify(evidence, endorsements, request, now)
