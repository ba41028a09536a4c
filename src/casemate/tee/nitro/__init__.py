"""The Nitro room: attestation documents of AWS Nitro Enclaves. README.md says what they are worth.

The functions below hide the submodules of the same names on purpose: this package *is* a `casemate.tee.room.Room`.
"""

from casemate.tee.nitro.collect import collect
from casemate.tee.nitro.endorse import endorse
from casemate.tee.nitro.measure import machine, measure, request
from casemate.tee.nitro.verify import verify

__all__ = ["collect", "endorse", "machine", "measure", "request", "verify"]
