"""CoCo's `sample` evidence: a TEE for protocol tests that proves nothing (guest-components, sample attester).

    {"svn": "1", "report_data": "<base64 of the report data, unpadded>"}

Anybody can write this. Its claims therefore carry the caution `sample.proof`, which a policy refuses unless it is
accepted by that name, and a broker refuses the TEE before it comes here unless it was enabled by name.
"""

from __future__ import annotations

import hmac
from datetime import datetime

import msgspec

from casemate.errors import Finding, Malformed, Refused, Unusable
from casemate.schema.claims import Claims
from casemate.schema.endorsements import DEVELOPMENT, Endorsements
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request
from casemate.wire.encoding import b64, unb64

NAME = "sample"
_HINT = "use a real TEE; accept sample evidence by name only to test the protocol"


class _Wire(msgspec.Struct, frozen=True):
    svn: str
    report_data: str


def verify(evidence: Evidence, endorsements: Endorsements, request: Request, now: datetime) -> Claims:
    """Claims of sample evidence, always with the caution `sample.proof`; `Refused` when it echoes other report data."""
    if evidence.tee != NAME:
        raise Unusable(f"evidence of {evidence.tee[:32]!r} was given to the sample room")
    try:
        wire = msgspec.convert(evidence.primary, _Wire)
    except msgspec.ValidationError as error:
        raise Malformed(f"sample evidence: {error}") from error
    if len(wire.report_data) > 128 or len(wire.svn) > 16:
        raise Malformed("sample evidence: a member is too long")
    shown = unb64(wire.report_data, "report_data")
    checks: tuple[Finding, ...] = ()
    if request.report_data is not None:
        ok = hmac.compare_digest(shown, request.report_data)
        hint = "" if ok else "the evidence was made for another request"
        finding = Finding("sample.nonce", request.report_data.hex(), shown.hex() or "nothing", hint, ok)
        if not ok:
            raise Refused([finding])
        checks = (finding,)
    return Claims(
        tee=NAME,
        platform_class=DEVELOPMENT,
        memory_encrypted=False,
        debug=False,
        measurement={"launch_digest": "abcde"},
        report_data=shown.hex(),
        init_data="",  # nothing binds it
        fresh=request.report_data is not None,
        vouched_by="nobody",
        values={
            "svn": wire.svn,
            "report_data": wire.report_data,
            "init_data": b64(request.initdata_digest or b""),
            "launch_digest": "abcde",
            "platform_version": {"major": 1, "minor": 4},
            "debug": False,
        },
        checks=checks,
        cautions=(Finding("sample.proof", "evidence that hardware signed", "evidence that anybody can write", _HINT),),
    )
