"""Judge an SGX quote: the DCAP wall's rules (dcap/verify.py), then the enclave's report.

Rules (checks)
  sgx.report_data   the report data that was asked for, zeros behind it
  sgx.initdata      CONFIGID is the initdata digest, zeros behind it
  sgx.init          the enclave was initialised
Rules (cautions)
  sgx.debug         not a debug enclave, whose memory the host can read
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from casemate.errors import Unusable
from casemate.schema.claims import Claims
from casemate.schema.endorsements import PRODUCTION, Endorsements
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request
from casemate.tee.dcap import claims as shared
from casemate.tee.dcap import verify as dcap
from casemate.tee.dcap.quote import EnclaveReport, Quote
from casemate.tee.rules import Rules
from casemate.tee.sgx import report as wire

NAME = "sgx"


def verify(evidence: Evidence, endorsements: Endorsements, request: Request, now: datetime) -> Claims:
    """Claims of a genuine quote, or `Refused` with every failed rule; `Unusable` when only collateral is missing."""
    if evidence.tee != NAME:
        raise Unusable(f"evidence of {evidence.tee[:32]!r} was given to the SGX room")
    quote, body = wire.parse_evidence(evidence.primary)
    rules = Rules(NAME)
    platform = dcap.judge(NAME, quote, endorsements, now, rules)
    flags = body.attributes[0]
    rules.check("init", bool(flags & wire.FLAG_INIT), "an initialised enclave", f"flags {body.attributes.hex()}")
    found = "debug" if body.debug else "no debug"
    rules.caution("debug", not body.debug, "no debug enclave", found, "build and sign the enclave without debug")
    if request.report_data is not None:
        rules.register("report_data", request.report_data, body.report_data, "the enclave answered another question")
    if request.initdata_digest is not None:
        hint = "another initdata was given to the enclave"
        rules.initdata(request.initdata_digest, body.config_id, hint)
    rules.settle("collateral.")
    root = platform.root
    if root is None or not platform.complete:
        raise rules.refusal()
    return Claims(
        tee=NAME,
        platform_class=root.platform_class,
        memory_encrypted=root.platform_class == PRODUCTION,
        debug=body.debug,
        measurement={"mr_enclave": body.mr_enclave.hex(), "mr_signer": body.mr_signer.hex()},
        report_data=body.report_data.hex(),
        init_data=body.config_id.hex(),
        fresh=request.report_data is not None,
        vouched_by=root.name,
        values=_values(quote, body) | shared.values(platform, endorsements),
        checks=tuple(rules.checks),
        cautions=tuple(rules.cautions),
        tcb_status=platform.status,
        valid_until=platform.valid_until,
    )


def _values(quote: Quote, body: EnclaveReport) -> dict[str, Any]:
    """`header` and `body` as hex of the bytes in the quote (little-endian numbers stay so)."""
    header = quote.header
    return {
        "header": {
            "version": header.version.to_bytes(2, "little").hex(),
            "att_key_type": header.key_type.to_bytes(2, "little").hex(),
            "att_key_data_0": header.tee_type.to_bytes(4, "little").hex(),
            "qe_svn": header.qe_svn.hex(),
            "pce_svn": header.pce_svn.hex(),
            "vendor_id": header.vendor_id.hex(),
            "user_data": header.user_data.hex(),
        },
        "body": {
            "cpu_svn": body.cpu_svn.hex(),
            "misc_select": body.misc_select.hex(),
            "attributes": {"flags": body.attributes[:8].hex(), "xfrm": body.attributes[8:].hex()},
            "mr_enclave": body.mr_enclave.hex(),
            "mr_signer": body.mr_signer.hex(),
            "config_id": body.config_id.hex(),
            "isv_prod_id": body.isv_prod_id.to_bytes(2, "little").hex(),
            "isv_svn": body.isv_svn.to_bytes(2, "little").hex(),
            "config_svn": body.config_svn.to_bytes(2, "little").hex(),
            "isv_ext_prod_id": body.isv_ext_prod_id.hex(),
            "isv_family_id": body.isv_family_id.hex(),
            "report_data": body.report_data.hex(),
            "reserved1": body.reserved1.hex(),
            "reserved2": body.reserved2.hex(),
            "reserved3": body.reserved3.hex(),
            "reserved4": body.reserved4.hex(),
        },
        "trailing_bytes": quote.trailing,
    }
