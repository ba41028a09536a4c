"""The CSV room: attestation reports of Hygon's encrypted VMs. README.md says what they are worth.

The functions below hide the submodules of the same names on purpose: this package *is* a `casemate.tee.room.Room`.
"""

from casemate.tee.csv.collect import collect
from casemate.tee.csv.endorse import endorse
from casemate.tee.csv.measure import machine, measure, request
from casemate.tee.csv.verify import verify

__all__ = ["collect", "endorse", "machine", "measure", "request", "verify"]
