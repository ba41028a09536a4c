"""The SEV-SNP room: attestation reports and launch digests. README.md says what they are worth.

The functions below hide the submodules of the same names on purpose: this package *is* a `casemate.tee.room.Room`.
"""

from casemate.tee.snp.collect import collect
from casemate.tee.snp.endorse import endorse
from casemate.tee.snp.measure import machine, measure, request
from casemate.tee.snp.verify import verify

__all__ = ["collect", "endorse", "machine", "measure", "request", "verify"]
