"""The Nitro room: attestation documents of AWS Nitro Enclaves. README.md says what they are worth.

The functions below hide the submodules of the same names on purpose: this package *is* a `casemate.tee.room.Room`.
"""

from __future__ import annotations

from casemate.errors import Unusable
from casemate.schema.evidence import Evidence
from casemate.schema.launch import Launch, Machine
from casemate.schema.measurement import Measurement
from casemate.schema.request import Request
from casemate.tee.nitro.endorse import endorse
from casemate.tee.nitro.verify import verify

__all__ = ["collect", "endorse", "machine", "measure", "request", "verify"]


def machine(launch: Launch) -> Machine:
    """Not possible: enclaves are started by AWS's hypervisor, not by QEMU."""
    raise Unusable("a Nitro enclave cannot be started here", hint="start it with AWS's nitro-cli on an EC2 instance")


def measure(launch: Launch) -> Measurement:
    """Not possible from a `Launch`: an enclave is measured from its image file (EIF)."""
    raise Unusable("a Nitro enclave is not measured from a launch", hint="compute PCR 0 to 2 from its image file (EIF)")


def request(nonce: bytes, hint: bytes) -> Request:
    """The request that binds `nonce`: it is the document's nonce field."""
    del hint
    return Request(report_data=nonce)


def collect(request: Request) -> Evidence:
    """Not built yet: asks the Nitro Security Module inside an enclave."""
    raise Unusable("documents are not collected yet", hint="use the enclave's own library and verify its document here")
