"""Judge an Azure confidential VM on SEV-SNP: the wall's rules (hcl/verify.py), SNP's (snp/verify.py), and these.

Rules (checks)
  az-snp-vtpm.hcl.vmpl   the hardware report is of VMPL 0, the paravisor's level. A guest below it can ask for reports
                         over data of its own choice, so another level proves nothing about the runtime data.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from casemate.errors import Unusable
from casemate.schema.claims import Claims
from casemate.schema.endorsements import Endorsements
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request
from casemate.tee.rules import Rules
from casemate.wire.encoding import b64

if TYPE_CHECKING:
    from casemate.tee.hcl.report import HclReport, Sent

NAME, HARDWARE = "az-snp-vtpm", "snp"
# CoCo shows these of SNP's claims as text here, and the measurement in base64.
_AS_TEXT = (
    "policy_abi_major", "policy_abi_minor", "policy_smt_allowed", "policy_migrate_ma", "policy_debug_allowed",
    "policy_single_socket", "reported_tcb_bootloader", "reported_tcb_tee", "reported_tcb_snp", "reported_tcb_microcode",
    "platform_tsme_enabled", "platform_smt_enabled",
)  # fmt: skip


def verify(evidence: Evidence, endorsements: Endorsements, request: Request, now: datetime) -> Claims:
    """Claims of both layers, or `Refused` with every failed rule; `Unusable` when only AMD's certificates are missing.

    `endorsements` are those of SNP: ASK and ARK, a VCEK where none came along, revocation lists as `*.crl`.
    """
    from casemate.tee.hcl import report as wire
    from casemate.tee.hcl import verify as hcl
    from casemate.tee.snp import report as snp
    from casemate.tee.snp.verify import verify as judge

    if evidence.tee != NAME:
        raise Unusable(f"evidence of {evidence.tee[:32]!r} was given to the room of Azure's SNP machines")
    sent = wire.parse_evidence(evidence.primary, "vcek")
    found = hcl.Found(sent, wire.parse(sent.report, wire.SNP), Rules(NAME))
    report = snp.parse(found.report.hardware)
    hcl.ask(found, judge, hardware(found.report, sent), endorsements, now)
    found.rules.check("hcl.vmpl", report.vmpl == 0, "VMPL 0, the paravisor's", f"VMPL {report.vmpl:#x}",
                      "this report was not asked for by the paravisor")  # fmt: skip
    hcl.judge(found, report.report_data, evidence, request)
    claims = hcl.settle(found)
    # The digest of the key that signed the paravisor's launch (ID block): the same over Microsoft's updates of it.
    registers = claims.measurement | {"id_key_digest": report.id_key_digest.hex()}
    values = _values(claims.values, report.measurement)
    base = ("measurement", "id_key_digest")
    return hcl.compose(NAME, found, request, values=values, registers=registers, rests_on=base)


def hardware(report: HclReport, sent: Sent) -> Evidence:
    """The SNP evidence inside."""
    chain = [{"cert_type": "VCEK", "data": b64(sent.hardware)}] if sent.hardware else None
    return Evidence(tee=HARDWARE, primary={"attestation_report": b64(report.hardware), "cert_chain": chain})


def _values(values: dict[str, Any], measurement: bytes) -> dict[str, Any]:
    text = {name: str(values[name]).lower() for name in _AS_TEXT}
    return values | text | {"measurement": b64(measurement)}
