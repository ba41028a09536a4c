"""Composite evidence: a CPU's, and beside it that of devices which are passed through to the same machine.

Standard: coco-kbs 0.4.0. `additional_evidence` is a string, empty or the JSON map of TEE name → evidence object. The
primary evidence binds the string as it was sent; each device binds SHA-384 over the RFC 8785 JSON of nonce and
tee-pubkey alone, because its evidence must exist before the string does.

All parts must be genuine. `alone` is for those who judge a primary and would leave devices unseen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from casemate.errors import Finding, Malformed, Refused, Unavailable, Unusable
from casemate.schema.claims import Claims
from casemate.schema.endorsements import PRODUCTION, Endorsements
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request
from casemate.tee import room
from casemate.tee.room import Fetch
from casemate.wire import jcs

MAX_SIZE = 4 << 20
MAX_PARTS = 8


def devices(evidence: Evidence) -> tuple[Evidence, ...]:
    """The additional evidence, one for each TEE that it names, in the order of names; empty when there is none."""
    if not evidence.additional:
        return ()
    parts = jcs.parse_object(evidence.additional, "additional evidence", limit=MAX_SIZE)
    if not 1 <= len(parts) <= MAX_PARTS:
        raise Malformed(f"additional evidence: 1 to {MAX_PARTS} TEEs are wanted")
    if evidence.tee in parts:
        raise Malformed("additional evidence: the primary's own TEE stands there again")
    for name, primary in parts.items():
        if not isinstance(primary, dict):
            raise Malformed(f"additional evidence: {name[:32]!r} is not an object")
    return tuple(Evidence(tee=name, primary=primary) for name, primary in sorted(parts.items()))


def alone(evidence: Evidence) -> Evidence:
    """The evidence, when nothing stands beside it; `Unusable` when a device's would be left unseen."""
    if evidence.additional:
        raise Unusable(
            "this evidence has additional evidence beside it, which would not be judged",
            hint="judge all of it: casemate.verify_all",
        )
    return evidence


def device_request(nonce: str, tee_pubkey: dict[str, Any]) -> Request:
    """What every device must bind in a KBS session: 48 bytes, of which a room takes what its TEE can hold."""
    document = jcs.canonical({"nonce": nonce, "tee-pubkey": tee_pubkey})
    return Request(report_data=hashlib.sha384(document).digest())


def endorse(evidence: Evidence, fetch: Fetch) -> Endorsements:
    """What the rooms gather for all parts. A device's that cannot be had is left out: its room says what is missing."""
    found = room(evidence.tee).endorse(evidence, fetch)
    certificates, collateral = list(found.certificates), dict(found.collateral)
    for part in devices(evidence):
        try:
            more = room(part.tee).endorse(part, fetch)
        except Unavailable:
            continue
        certificates += more.certificates
        collateral = {**more.collateral, **collateral}
    return msgspec.structs.replace(found, certificates=tuple(certificates), collateral=collateral)


def verify_all(
    evidence: Evidence,
    endorsements: Endorsements,
    request: Request,
    now: datetime,
    *,
    device: Request | None = None,
) -> tuple[Claims, ...]:
    """Claims of the primary and then of each device.

    `Refused` carries the rules of all parts when one is not genuine; `Unusable` says that one cannot be judged, or that
    freshness is asked of the primary and not of devices.
    """
    parts = devices(evidence)
    if parts and device is None and request.report_data is not None:
        raise Unusable(
            "freshness is asked of the CPU and not of its devices", hint="give `device`: what they must bind"
        )
    primary = msgspec.structs.replace(evidence, additional="")
    asked = [(primary, request), *((part, device or Request()) for part in parts)]
    judged: list[Claims] = []
    findings: list[Finding] = []
    for part, wanted in asked:
        try:
            judged.append(room(part.tee).verify(part, endorsements, wanted, now))
        except Refused as refusal:
            findings += refusal.findings
    if findings:
        raise Refused([*(check for claims in judged for check in claims.checks), *findings])
    return tuple(judged)


def joined(claims: Sequence[Claims]) -> Claims:
    """One paper for a policy that knows only one: the primary's, as weak as the weakest part in every respect.

    Checks and cautions are those of all; a development device makes it development; debug anywhere is debug.
    """
    primary, *others = claims
    if not others:
        return primary
    ends = [part.valid_until for part in claims if part.valid_until is not None]
    weakest = next((part for part in claims if part.platform_class != PRODUCTION), primary)
    return msgspec.structs.replace(
        primary,
        platform_class=weakest.platform_class,
        vouched_by=weakest.vouched_by,
        memory_encrypted=all(part.memory_encrypted for part in claims),
        debug=any(part.debug for part in claims),
        fresh=all(part.fresh for part in claims),
        checks=tuple(check for part in claims for check in part.checks),
        cautions=tuple(caution for part in claims for caution in part.cautions),
        valid_until=min(ends) if ends else None,
        tcb_status=_status(claims),
    )


def _status(claims: Sequence[Claims]) -> str:
    """The primary's; devices of today's rooms have none. Two that differ are both shown, which no policy accepts."""
    return " and ".join(dict.fromkeys(part.tcb_status for part in claims if part.tcb_status))
