"""Evidence of Azure's SNP machines in files: tee/hcl/gather.py; certificates and lists are the SNP room's."""

from __future__ import annotations

from casemate.crypto import chain
from casemate.errors import Malformed
from casemate.tee.files import Case, File, Gathered
from casemate.tee.hcl import gather as wall
from casemate.tee.hcl import report as wire
from casemate.tee.snp import files as snp
from casemate.tee.snp import vek


def gather(case: Case) -> Gathered | None:
    """The evidence of a case with AMD's papers, or None."""
    found = wall.machines(case, "az-snp-vtpm", "vcek", wire.SNP, _keys(case))
    if not found:
        return None
    hardware = wire.parse(found[0].sent.report, wire.SNP).hardware
    return wall.compose(found, wall.with_hardware(case, found[0], hardware, snp.gather), ("snp", "tpm"))


def _keys(case: Case) -> list[File]:
    """The endorsement keys that lie loose in the case."""
    found = []
    for der in case.certificates:
        try:
            if vek.kind_of(chain.load(der)):
                found.append(File("", der))
        except Malformed:
            continue
    return found
