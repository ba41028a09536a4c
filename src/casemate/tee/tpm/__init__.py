"""The TPM room: quotes of a (virtual) TPM 2.0 and the firmware's event log. README.md says what it is worth.

The functions below hide the submodules of the same names on purpose: this package *is* a `casemate.tee.room.Room`.
Everything here is light to import, because the guest imports it; heavy parts are imported where they are used.
"""

from casemate.tee.tpm.collect import collect
from casemate.tee.tpm.endorse import endorse
from casemate.tee.tpm.measure import machine, measure, request
from casemate.tee.tpm.verify import verify

__all__ = ["collect", "endorse", "machine", "measure", "request", "verify"]
