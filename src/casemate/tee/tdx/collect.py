"""Collect a TD quote through the kernel's configfs-tsm, with the firmware's event log (CCEL).

Standard: Linux Documentation/ABI/testing/configfs-tsm-report; ACPI CCEL table (UEFI 2.10 section 38).
"""

from __future__ import annotations

from pathlib import Path

from casemate.errors import Unusable
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request
from casemate.tee import tsm
from casemate.wire.encoding import b64

CCEL = Path("/sys/firmware/acpi/tables/data/CCEL")
PROVIDER = "tdx_guest"


def present(*, reports: Path = tsm.REPORTS) -> bool:
    """Whether the kernel of this machine offers TDX reports."""
    return tsm.provider(reports) == PROVIDER


def collect(request: Request, *, reports: Path = tsm.REPORTS, ccel: Path = CCEL) -> Evidence:
    """Evidence over `request`; `Unusable` where the kernel offers no TDX reports."""
    if request.report_data is not None and len(request.report_data) > 64:
        raise Unusable(f"report data of {len(request.report_data)} bytes, a TD report holds 64")
    report = tsm.collect((request.report_data or b"").ljust(64, b"\0"), PROVIDER, reports=reports)
    try:
        log = b64(ccel.read_bytes()) if ccel.exists() else None
    except OSError:
        log = None  # the log is for the verifier's convenience: without it the registers stand alone
    return Evidence(tee="tdx", primary={"quote": b64(report.out), "cc_eventlog": log})
