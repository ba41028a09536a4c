"""SGX evidence in files: a quote of an enclave, as it is or in JSON; the rest is the DCAP wall's (dcap/gather.py)."""

from __future__ import annotations

from casemate.tee.dcap import gather as wall
from casemate.tee.dcap.quote import EnclaveReport
from casemate.tee.files import Case, Gathered


def gather(case: Case) -> Gathered | None:
    """The quote of a case with Intel's collateral, or None."""
    found = wall.quotes(case, "sgx", EnclaveReport)
    if not found:
        return None
    primaries = {f.quote.signed + f.quote.signature: wall.primary(f) for f in reversed(found)}
    return wall.gathered(case, "sgx", found, primaries)
