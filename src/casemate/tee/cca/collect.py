"""Collect a CCA token inside a realm, through the kernel's configfs-tsm.

Standard: Linux Documentation/ABI/testing/configfs-tsm-report; the driver is arm-cca-guest. Both tokens, the realm's and
the platform's, are in the one blob; the host adds nothing.
"""

from __future__ import annotations

from pathlib import Path

from casemate.errors import Unusable
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request
from casemate.tee import tsm

PROVIDER = "arm_cca_guest"
_SIZE = 64


def present(*, reports: Path = tsm.REPORTS) -> bool:
    """Whether the kernel of this machine offers CCA tokens."""
    return tsm.provider(reports) == PROVIDER


def collect(request: Request, *, reports: Path = tsm.REPORTS) -> Evidence:
    """Evidence over `request`, in CoCo's form; `Unusable` where the kernel offers no CCA tokens."""
    if request.report_data is not None and len(request.report_data) > _SIZE:
        raise Unusable(f"report data of {len(request.report_data)} bytes, a realm's challenge holds {_SIZE}")
    found = tsm.collect((request.report_data or b"").ljust(_SIZE, b"\0"), PROVIDER, reports=reports)
    return Evidence(tee="cca", primary={"token": list(found.out)})
