"""Casemate: ordinary OCI containers inside hardware trusted execution environments, checkable by anyone.

The package is a house of floors; ARCHITECTURE.md has the picture. Imports point down only.

    claims = casemate.verify(evidence, endorsements, request, now)      # genuine, or Refused with every failed rule
    cpu, gpus = casemate.verify_all(evidence, endorsements, request, now, device=device_request)   # with its devices
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
__all__ = ["__version__", "verify", "verify_all"]


def verify(evidence: Evidence, endorsements: Endorsements, request: Request, now: datetime) -> Claims:
    """Judge one attester's evidence with the room of its TEE, offline, at the time `now` (timezone-aware).

    Returns claims when the evidence is genuine and carries what `request` asked for. Raises `Refused` with every failed
    rule, `Unusable` when something is missing without which nobody can judge (an unknown TEE, absent collateral), and
    `Malformed` when it breaks its format. Genuine is not yet acceptable: `claims.cautions` and `claims.tcb_status` are
    for a policy (`casemate.policy.platform.judge` has a safe default), measurements for reference values.

    Evidence with additional evidence beside it (`evidence.additional`: GPUs) is `Unusable` here, because its devices
    would be left unseen: `verify_all` judges both.
    """
    from casemate.tee import composite, room

    return room(evidence.tee).verify(composite.alone(evidence), endorsements, request, now)


def verify_all(
    evidence: Evidence, endorsements: Endorsements, request: Request, now: datetime, *, device: Request | None = None
) -> tuple[Claims, ...]:
    """Judge a CPU's evidence and that of every device beside it; claims of the CPU first, then in order of TEE names.

    All must be genuine: `Refused` carries the failed rules of all. `device` is what devices must bind; in a KBS session
    `casemate.tee.composite.device_request(nonce, tee_pubkey)` makes it. It must be given where `request` asks for
    report data. `endorsements` serve all parts. Other errors are those of `verify`.
    """
    from casemate.tee import composite

    return composite.verify_all(evidence, endorsements, request, now, device=device)
