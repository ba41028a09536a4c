"""Endorsements of an Azure TDX machine: Intel's collateral for its quote. `fetch` as in dcap/endorse.py."""

from __future__ import annotations

from casemate.schema.endorsements import Endorsements
from casemate.schema.evidence import Evidence
from casemate.tee.room import Fetch


def endorse(evidence: Evidence, fetch: Fetch) -> Endorsements:
    """Intel's collateral, as `casemate.tee.tdx` gathers it."""
    from casemate.tee.az_tdx_vtpm.verify import hardware
    from casemate.tee.hcl import report as wire
    from casemate.tee.tdx.endorse import endorse as gather

    return gather(hardware(wire.parse_evidence(evidence.primary, "td_quote").hardware), fetch)
