"""The Arm CCA room: attestation tokens of realms. README.md says what they are worth.

The functions below hide the submodules of the same names on purpose: this package *is* a `casemate.tee.room.Room`.
"""

from casemate.tee.cca.collect import collect
from casemate.tee.cca.endorse import endorse
from casemate.tee.cca.measure import machine, measure, request
from casemate.tee.cca.verify import verify

__all__ = ["collect", "endorse", "machine", "measure", "request", "verify"]
