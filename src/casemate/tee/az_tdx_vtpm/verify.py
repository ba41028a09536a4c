"""Judge an Azure confidential VM on TDX: the wall's rules (hcl/verify.py), TDX's (tdx/verify.py), and these.

Rules (checks)
  az-tdx-vtpm.hcl.td_report   the TD report in the HCL report says what the quote says: both are of one moment. Only its
                              CPU can check the report itself, so the quote is what counts.
"""

from __future__ import annotations

from datetime import datetime

from casemate.errors import Unusable
from casemate.schema.claims import Claims
from casemate.schema.endorsements import Endorsements
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request
from casemate.tee.rules import Rules
from casemate.wire.encoding import b64

NAME, HARDWARE = "az-tdx-vtpm", "tdx"
# TDREPORT_STRUCT: report data, then TDINFO from its attributes on (Intel TDX module ABI, table "TDREPORT_STRUCT").
_REPORT_DATA, _TD_INFO = slice(128, 192), slice(512, 912)


def verify(evidence: Evidence, endorsements: Endorsements, request: Request, now: datetime) -> Claims:
    """Claims of both layers, or `Refused` with every failed rule; `Unusable` when only Intel's collateral is missing.

    `endorsements` are those of TDX.
    """
    from casemate.tee.hcl import report as wire
    from casemate.tee.hcl import verify as hcl
    from casemate.tee.tdx import report as tdx
    from casemate.tee.tdx.verify import verify as judge

    if evidence.tee != NAME:
        raise Unusable(f"evidence of {evidence.tee[:32]!r} was given to the room of Azure's TDX machines")
    sent = wire.parse_evidence(evidence.primary, "td_quote")
    found = hcl.Found(sent, wire.parse(sent.report, wire.TDX), Rules(NAME))
    inside = hardware(sent.hardware)
    _, body, _ = tdx.parse_evidence(inside.primary)
    hcl.ask(found, judge, inside, endorsements, now)
    info = [body.td_attributes, body.xfam, body.mr_td, body.mr_config_id, body.mr_owner, body.mr_owner_config]
    report = found.report.hardware
    same = report[_REPORT_DATA] == body.report_data and report[_TD_INFO] == b"".join([*info, *body.rtmrs])
    found.rules.check("hcl.td_report", same, "the TD report of this quote", "the same" if same else "another",
                      "quote and HCL report are of different moments: ask for both again")  # fmt: skip
    hcl.judge(found, body.report_data, evidence, request)
    claims = hcl.settle(found)
    return hcl.compose(NAME, found, request, values=claims.values, registers=claims.measurement, rests_on=("mrtd",))


def hardware(quote: bytes) -> Evidence:
    """The TDX evidence inside; a paravisor sends no event log, and its RTMRs stay zero."""
    return Evidence(tee=HARDWARE, primary={"quote": b64(quote), "cc_eventlog": None})
