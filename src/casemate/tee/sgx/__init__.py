"""The SGX room: DCAP quotes of enclaves. README.md says what they are worth.

The functions below hide the submodules of the same names on purpose: this package *is* a `casemate.tee.room.Room`.
"""

from casemate.tee.sgx.collect import collect
from casemate.tee.sgx.endorse import endorse
from casemate.tee.sgx.measure import machine, measure, request
from casemate.tee.sgx.verify import verify

__all__ = ["collect", "endorse", "machine", "measure", "request", "verify"]
