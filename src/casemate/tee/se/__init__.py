"""The IBM Secure Execution room: attestation measurements of Z guests. README.md says what they are worth.

The functions below hide the submodules of the same names on purpose: this package *is* a `casemate.tee.room.Room`.
"""

from casemate.tee.se.collect import collect
from casemate.tee.se.endorse import endorse
from casemate.tee.se.measure import machine, measure, request
from casemate.tee.se.verify import verify

__all__ = ["collect", "endorse", "machine", "measure", "request", "verify"]
