"""Collect in Azure's confidential VMs on TDX: report and quote (tee/hcl), the TD quote from the metadata service."""

from __future__ import annotations

import base64

from casemate.errors import Malformed
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request
from casemate.tee.hcl import collect as hcl
from casemate.tee.hcl.report import TD_REPORT_SIZE, TDX, parse
from casemate.tee.tpm.wire import Transport
from casemate.wire import jcs
from casemate.wire.encoding import b64u, unb64u

QUOTES = "/acc/tdquote"


def present(*, transport: Transport | None = None) -> bool:
    """Whether this machine is one."""
    return hcl.present(TDX, transport)


def collect(request: Request, *, transport: Transport | None = None, fetch: hcl.Fetch = hcl.metadata) -> Evidence:
    """Evidence over `request` in CoCo's version 2; version 1 when no report data are asked for."""
    report, quote = hcl.collect(TDX, request.report_data, transport)
    td_report = parse(report, TDX).hardware[:TD_REPORT_SIZE]
    primary = {
        "version": 1 if request.report_data is None else 2,
        "tpm_quote": quote,
        "hcl_report": base64.urlsafe_b64encode(report).decode(),
        "td_quote": base64.urlsafe_b64encode(_td_quote(fetch(QUOTES, _body(td_report)))).decode(),
    }
    return Evidence(tee="az-tdx-vtpm", primary=primary)


def _body(td_report: bytes) -> bytes:
    return jcs.canonical({"report": b64u(td_report)})


def _td_quote(answer: bytes) -> bytes:
    text = jcs.parse_object(answer, "metadata service").get("quote")
    if not isinstance(text, str):
        raise Malformed("metadata service: no quote")
    return unb64u(text.rstrip("="), "quote")
