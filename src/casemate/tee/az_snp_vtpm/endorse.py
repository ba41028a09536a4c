"""Endorsements of an Azure SNP machine: AMD's authorities and revocation list; the VCEK comes with the evidence."""

from __future__ import annotations

from casemate.schema.endorsements import Endorsements
from casemate.schema.evidence import Evidence
from casemate.tee.room import Fetch


def endorse(evidence: Evidence, fetch: Fetch) -> Endorsements:
    """ASK, ARK and AMD's list of this product, as `casemate.tee.snp` gathers them."""
    from casemate.tee.az_snp_vtpm.verify import hardware
    from casemate.tee.hcl import report as wire
    from casemate.tee.snp.endorse import endorse as gather

    sent = wire.parse_evidence(evidence.primary, "vcek")
    return gather(hardware(wire.parse(sent.report, wire.SNP), sent), fetch)
