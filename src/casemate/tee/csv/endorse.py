"""Endorsements of a CSV report: HSK and CEK of its chip, from Hygon's certificate service."""

from __future__ import annotations

import re
from collections.abc import Callable

from casemate.errors import Unusable
from casemate.schema.endorsements import Endorsements
from casemate.schema.evidence import Evidence
from casemate.tee.csv.wire import parse_evidence

SERVICE = "https://cert.hygon.cn/hsk_cek"
_SERIAL = re.compile(r"[A-Za-z0-9]{1,64}")


def endorse(evidence: Evidence, fetch: Callable[[str], bytes]) -> Endorsements:
    """`hsk_cek` of the chip that the evidence names; nothing where the evidence carries them itself."""
    parts = parse_evidence(evidence.primary)
    if parts.hsk is not None and parts.cek is not None:
        return Endorsements()
    serial = parts.serial_number.rstrip(b"\0").decode("ascii", "replace")
    if not _SERIAL.fullmatch(serial):
        raise Unusable("the evidence names no chip, so nobody can ask for its certificates", hint="give HSK and CEK")
    return Endorsements(collateral={"hsk_cek": fetch(f"{SERVICE}?snumber={serial}")})
