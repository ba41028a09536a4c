"""Evidence of Azure's SNP machines in files: tee/hcl/gather.py; certificates and lists are the SNP room's."""

from __future__ import annotations

from casemate.tee.files import Case, Gathered
from casemate.tee.hcl import gather as wall
from casemate.tee.hcl import report as wire
from casemate.tee.snp import files as snp


def gather(case: Case) -> Gathered | None:
    """The evidence of a case with AMD's papers, or None."""
    found = wall.machines(case, "az-snp-vtpm", "vcek", wire.SNP)
    if not found:
        return None
    hardware = wire.parse(found[0].sent.report, wire.SNP).hardware
    return wall.compose(found, wall.with_hardware(case, found[0], hardware, snp.gather), ("snp", "tpm"))
