"""The SGX room: DCAP quotes of enclaves. README.md says what they are worth.

The functions below hide the submodules of the same names on purpose: this package *is* a `casemate.tee.room.Room`.
"""

from __future__ import annotations

from casemate.errors import Unusable
from casemate.schema.launch import Launch, Machine
from casemate.schema.measurement import Measurement
from casemate.schema.request import Request
from casemate.tee.sgx.collect import collect
from casemate.tee.sgx.endorse import endorse
from casemate.tee.sgx.verify import verify

__all__ = ["collect", "endorse", "machine", "measure", "request", "verify"]


def machine(launch: Launch) -> Machine:
    """Not possible: an enclave is a process, not a VM."""
    raise Unusable("an SGX enclave is a process, not a VM", hint="start it with a library OS such as Gramine")


def measure(launch: Launch) -> Measurement:
    """Not possible from a `Launch`: an enclave is measured when it is built and signed."""
    raise Unusable("an SGX enclave is not measured from a launch", hint="its signing tool prints MRENCLAVE")


def request(nonce: bytes, hint: bytes) -> Request:
    """The request that binds `nonce`: the report data, zeros behind it."""
    del hint
    return Request(report_data=nonce)
