"""The room of Azure's confidential VMs on TDX. README.md says what they are worth.

The functions below hide the submodules of the same names on purpose: this package *is* a `casemate.tee.room.Room`.
"""

from __future__ import annotations

from casemate.errors import Unusable
from casemate.schema.launch import Launch, Machine
from casemate.schema.measurement import Measurement
from casemate.schema.request import Request
from casemate.tee.az_tdx_vtpm.collect import collect
from casemate.tee.az_tdx_vtpm.endorse import endorse
from casemate.tee.az_tdx_vtpm.verify import verify

__all__ = ["collect", "endorse", "machine", "measure", "request", "verify"]


def machine(launch: Launch) -> Machine:
    """Not possible: Azure starts its machines itself."""
    raise Unusable("a confidential VM of Azure cannot be started here", hint="create it with Azure's own tools")


def measure(launch: Launch) -> Measurement:
    """Not possible from a `Launch`: the paravisor is Microsoft's, and its firmware decides what the PCRs hold."""
    raise Unusable(
        "a confidential VM of Azure is not measured from a launch",
        hint="record the paravisor's measurement and the PCRs of a machine that you trust",
    )


def request(nonce: bytes, hint: bytes) -> Request:
    """The request that binds `nonce`: it is the quote's nonce and the runtime data's user data."""
    del hint
    return Request(report_data=nonce)
