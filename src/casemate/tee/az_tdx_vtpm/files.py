"""Evidence of Azure's TDX machines in files: tee/hcl/gather.py; Intel's collateral is the TDX room's."""

from __future__ import annotations

from casemate.tee.dcap import gather as dcap
from casemate.tee.dcap.quote import TdReport
from casemate.tee.files import Case, File, Gathered
from casemate.tee.hcl import gather as wall
from casemate.tee.hcl import report as wire
from casemate.tee.tdx import files as tdx


def gather(case: Case) -> Gathered | None:
    """The evidence of a case with Intel's collateral, or None."""
    quotes = [File(quote.name, quote.raw) for quote in dcap.quotes(case, "tdx", TdReport)]
    found = wall.machines(case, "az-tdx-vtpm", "td_quote", wire.TDX, quotes)
    if not found:
        return None
    return wall.compose(found, wall.with_hardware(case, found[0], found[0].sent.hardware, tdx.gather), ("tdx", "tpm"))
