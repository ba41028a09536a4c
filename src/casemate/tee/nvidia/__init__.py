"""The NVIDIA room: GPUs and NVSwitches beside a confidential VM. README.md says what they are worth.

The functions below hide the submodules of the same names on purpose: this package *is* a `casemate.tee.room.Room`.
"""

from casemate.tee.nvidia.collect import collect
from casemate.tee.nvidia.endorse import endorse
from casemate.tee.nvidia.measure import machine, measure, request
from casemate.tee.nvidia.verify import verify

__all__ = ["collect", "endorse", "machine", "measure", "request", "verify"]
