"""The PCRs that a launch will show, and the machine that a launch with a virtual TPM needs.

PCR 4, 8 and 9 are computed from the files (`casemate.boot.pcr`); PCR 0, 2, 3, 6 and 7 are recorded once per firmware
build and come in `launch.recorded`; 1 and 5 depend on the machine's size and are judged through the replayed log.
"""

from __future__ import annotations

from casemate.schema.launch import Launch, Machine
from casemate.schema.measurement import Measurement
from casemate.schema.request import Request


def machine(launch: Launch) -> Machine:
    """An ordinary q35 machine with generic firmware and a software TPM."""
    return Machine(machine="q35", firmware="generic", vtpm=True)


def measure(launch: Launch) -> Measurement:
    """`pcr4`, `pcr8` and `pcr9` from the files, with the recorded registers beside them."""
    from casemate.boot import pcr
    from casemate.errors import Unusable

    if launch.vmm or launch.image or launch.event_log or launch.guest_features is not None:
        raise Unusable("a TPM's registers are measured from kernel, initrd and command line alone")
    recorded = {name: value.lower() for name, value in launch.recorded.items() if name.startswith("pcr")}
    return Measurement(tee="tpm", values={**recorded, **pcr.direct_boot(launch)})


def request(nonce: bytes, hint: bytes) -> Request:
    """The nonce itself is the report data; a quote binds its first 32 bytes."""
    return Request(report_data=nonce)
