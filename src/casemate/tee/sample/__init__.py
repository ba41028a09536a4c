"""The sample room: CoCo's evidence without a TEE, for protocol tests. It proves nothing and says so (`verify`)."""

from __future__ import annotations

from casemate.errors import Unusable
from casemate.schema.endorsements import Endorsements
from casemate.schema.evidence import Evidence
from casemate.schema.launch import Launch, Machine
from casemate.schema.measurement import Measurement
from casemate.schema.request import Request
from casemate.tee.room import Fetch
from casemate.tee.sample.verify import verify
from casemate.wire.encoding import b64

__all__ = ["collect", "endorse", "machine", "measure", "request", "verify"]


def machine(launch: Launch) -> Machine:
    """`Unusable`: there is no such machine."""
    raise Unusable("sample is not a platform: it has no machine", hint="choose tpm, snp or tdx")


def measure(launch: Launch) -> Measurement:
    """`Unusable`: nothing is measured."""
    raise Unusable("sample is not a platform: nothing is measured", hint="choose tpm, snp or tdx")


def request(nonce: bytes, hint: bytes) -> Request:
    """The nonce itself is the report data."""
    return Request(report_data=nonce)


def collect(request: Request) -> Evidence:
    """Sample evidence; a guest never falls back to it, a test asks for it."""
    return Evidence(tee="sample", primary={"svn": "1", "report_data": b64(request.report_data or b"")})


def endorse(evidence: Evidence, fetch: Fetch) -> Endorsements:
    """Empty: nobody vouches for it."""
    return Endorsements()
