"""Collect an SNP report through the kernel's configfs-tsm, with the certificates that the host passes along.

Standard: Linux Documentation/ABI/testing/configfs-tsm-report.
"""

from __future__ import annotations

from pathlib import Path

from casemate.errors import Malformed, Unusable
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request
from casemate.tee import tsm
from casemate.tee.snp import report, wire

PROVIDER = "sev_guest"


def present(*, reports: Path = tsm.REPORTS) -> bool:
    """Whether the kernel of this machine offers SNP reports."""
    return tsm.provider(reports) == PROVIDER


def collect(request: Request, *, reports: Path = tsm.REPORTS) -> Evidence:
    """Evidence over `request`, in CoCo's form; `Unusable` where the kernel offers no SNP reports."""
    if request.report_data is not None and len(request.report_data) > 64:
        raise Unusable(f"report data of {len(request.report_data)} bytes, an SNP report holds 64")
    found = tsm.collect((request.report_data or b"").ljust(64, b"\0"), PROVIDER, reports=reports)
    try:
        chain = report.certificate_table(found.aux)
    except Malformed:
        chain = []  # the host's certificates are a convenience: the verifier can fetch AMD's
    return Evidence(tee="snp", primary=wire.to_json(found.out, chain))
