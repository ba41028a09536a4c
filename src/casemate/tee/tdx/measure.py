"""The machine that a TDX launch needs. Computing MRTD and the RTMRs comes with the TDX verifier."""

from __future__ import annotations

from casemate.errors import Unusable
from casemate.schema.launch import Launch, Machine
from casemate.schema.measurement import Measurement
from casemate.schema.request import Request
from casemate.wire.encoding import b64


def machine(launch: Launch) -> Machine:
    """A q35 machine as a trust domain; MRCONFIGID (48 bytes) carries the initdata digest, padded with zeros."""
    guest = "tdx-guest,id=tee0"
    if launch.initdata_digest is not None:
        guest += f",mrconfigid={b64(launch.initdata_digest.ljust(48, bytes(1)))}"
    return Machine(
        machine="q35,kernel-irqchip=split,confidential-guest-support=tee0",
        cpu=launch.cpu_type or "host",
        objects=(guest,),
        firmware="tdx",
        needs_kvm=True,
        protected_memory=True,
    )


def measure(launch: Launch) -> Measurement:
    """Not there yet."""
    raise Unusable("TDX measurements can't be computed yet", hint="they come with the TDX verifier")


def request(nonce: bytes, hint: bytes) -> Request:
    """The nonce itself is the report data."""
    return Request(report_data=nonce)
