"""The TDX room: quotes of trust domains. README.md says what they are worth.

The functions below hide the submodules of the same names on purpose: this package *is* a `casemate.tee.room.Room`.
"""

from casemate.tee.tdx.collect import collect
from casemate.tee.tdx.endorse import endorse
from casemate.tee.tdx.measure import machine, measure, request
from casemate.tee.tdx.verify import verify

__all__ = ["collect", "endorse", "machine", "measure", "request", "verify"]
