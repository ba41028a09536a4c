"""Collect in Azure's confidential VMs on SEV-SNP: report and quote (tee/hcl), the VCEK from the metadata service."""

from __future__ import annotations

import base64

from casemate.errors import Malformed
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request
from casemate.tee.hcl import collect as hcl
from casemate.tee.hcl.report import MAX_CERTIFICATE, SNP
from casemate.tee.tpm.wire import Transport
from casemate.wire import jcs
from casemate.wire.encoding import unb64

CERTIFICATES = "/metadata/THIM/amd/certification"
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


def present(*, transport: Transport | None = None) -> bool:
    """Whether this machine is one."""
    return hcl.present(SNP, transport)


def collect(request: Request, *, transport: Transport | None = None, fetch: hcl.Fetch = hcl.metadata) -> Evidence:
    """Evidence over `request` in CoCo's version 2; version 1 when no report data are asked for."""
    report, quote = hcl.collect(SNP, request.report_data, transport)
    primary = {
        "version": 1 if request.report_data is None else 2,
        "tpm_quote": quote,
        "hcl_report": base64.urlsafe_b64encode(report).decode(),
        "vcek": base64.urlsafe_b64encode(_vcek(fetch(CERTIFICATES, None))).decode(),
    }
    return Evidence(tee="az-snp-vtpm", primary=primary)


def _vcek(answer: bytes) -> bytes:
    """The certificate as DER. No X.509 code is loaded in the guest."""
    text = jcs.parse_object(answer, "metadata service").get("vcekCert")
    if not isinstance(text, str) or text.count(_BEGIN) != 1 or len(text) > 2 * MAX_CERTIFICATE:
        raise Malformed("metadata service: no VCEK certificate")
    return unb64("".join(text.partition(_BEGIN)[2].partition(_END)[0].split()), "vcekCert")
