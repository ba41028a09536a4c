"""Judge an SEV-SNP report: key chain, signature, TCB, policy, privilege, bindings. Every failed rule is reported.

Rules (checks)
  snp.certificates.vek, .ark   the certificates are there (only absences, and nothing else wrong: `Unusable`)
  snp.vek.*                    the VCEK or VLEK reaches the pinned ARK (RSA-PSS), is valid, not on a list that is given
  snp.vek.kind                 it is the kind of key that the report says, and its issuer is that kind's
  snp.vek.product              key, root and CPUID name one product
  snp.vek.tcb                  its TCB levels are the report's reported TCB
  snp.vek.chip                 its hardware id is the report's chip id (VCEK; unless the platform masks it)
  snp.signature                the key signed the report (ECDSA P-384)
  snp.report.vmpl              the report was asked for by the guest (VMPL 0 to 3), not by the host
  snp.policy.format, .platform the policy's fixed bit; the platform keeps what the policy demands
  snp.idblock.*                an ID block and its authentication that are given: who signed it, and it is the report's
  snp.report_data, snp.initdata  REPORT_DATA is what was asked for, zeros behind it; HOST_DATA is the initdata digest
Rules (cautions)
  snp.policy.debug             the host may not debug the guest
  snp.policy.migration         no migration agent is allowed or bound
  snp.policy.unknown           no policy bits that have no meaning here
  snp.tcb.order                committed and reported TCB are at most the current one

Heavy imports stand inside: the guest imports this room to collect.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING

from casemate.errors import Malformed, Unusable
from casemate.schema.claims import Claims
from casemate.schema.endorsements import PRODUCTION, Endorsements
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request
from casemate.tee.rules import Rules

if TYPE_CHECKING:
    from casemate.crypto.chain import Path
    from casemate.tee.snp.report import Report
    from casemate.tee.snp.vek import Vek

NAME = "snp"
# SHA-256 of the keys (DER SubjectPublicKeyInfo).
PINS: Mapping[str, str] = MappingProxyType(
    {
        "AMD ARK-Milan": "9f056bee44377e29308cb5ffa895bdfb62d18881fa6bed8d6f075b0204089cb9",
        "AMD ARK-Genoa": "429a69c9422aa258ee4d8db5fcda9c6470ef15f8cd5a9cebd6cbc7d90b863831",
        "AMD ARK-Turin": "4f125410563a2ab9a50356f9243f6fe0b6f73de98603f53f90339c70e9d7ad08",
    }
)
_SMT, _FIXED, _MIGRATION, _DEBUG, _SINGLE_SOCKET, _CXL = 16, 17, 18, 19, 20, 21
_AES_256_XTS, _RAPL_OFF, _CIPHERTEXT_HIDING, _PAGE_SWAP_OFF = 22, 23, 24, 25
_KNOWN_POLICY = (1 << 26) - 1


def verify(evidence: Evidence, endorsements: Endorsements, request: Request, now: datetime) -> Claims:
    """Claims of a genuine report, or `Refused` with every failed rule; `Unusable` when only certificates are missing.

    `endorsements.certificates` may hold VEK, ASK and ARK in any order; `collateral` revocation lists (DER) under names
    that end in `.crl`, and an ID block with its authentication under `id_block` and `id_auth`.
    """
    from casemate.tee.snp import certified
    from casemate.tee.snp import claims as shared
    from casemate.tee.snp.report import parse
    from casemate.tee.snp.wire import parse_evidence

    if evidence.tee != NAME:
        raise Unusable(f"evidence of {evidence.tee[:32]!r} was given to the SNP room")
    raw, sent = parse_evidence(evidence.primary)
    rules = Rules(NAME)
    report = parse(raw)
    key, path, root = certified.key(sent, endorsements, now, rules, PINS)
    _signature(report, path, rules)
    if key is not None and path is not None:
        _bound(report, key, path, rules)
    _judge(report, rules)
    _id_block(report, endorsements, rules)
    if request.report_data is not None:
        rules.register("report_data", request.report_data, report.report_data, "the guest answered another question")
    if request.initdata_digest is not None:
        rules.initdata(request.initdata_digest, report.host_data, "the guest was launched with another initdata")
    rules.settle("certificates.")
    if key is None or path is None or root is None:
        raise rules.refusal()
    return Claims(
        tee=NAME,
        platform_class=root.platform_class,
        memory_encrypted=root.platform_class == PRODUCTION,
        debug=bool(report.policy >> _DEBUG & 1),
        measurement={"measurement": report.measurement.hex()},
        report_data=report.report_data.hex(),
        init_data=report.host_data.hex(),
        fresh=request.report_data is not None,
        vouched_by=root.name,
        values=shared.values(report, key, path),
        checks=tuple(rules.checks),
        cautions=tuple(rules.cautions),
        valid_until=path.not_after,
        privilege_level=report.vmpl,
    )


def _signature(report: Report, path: Path | None, rules: Rules) -> None:
    from casemate.crypto import ecdsa
    from casemate.tee.snp.report import ECDSA_P384_SHA384

    if path is None:
        return  # the absence of a usable key was noted
    key = path.links[0].public
    known = report.signature_algorithm == ECDSA_P384_SHA384
    ok = known and ecdsa.verify_p384(key, report.signature, report.signed)
    found = "signed" if ok else "not signed" if known else f"algorithm {report.signature_algorithm}"
    rules.check("signature", ok, "the report signed by the endorsement key", found,
                "the report was changed, or the certificate is another chip's or another TCB's")  # fmt: skip


def _bound(report: Report, key: Vek, path: Path, rules: Rules) -> None:
    """The endorsement key is the one that this report speaks of."""
    from casemate.tee.snp import claims as shared
    from casemate.tee.snp.report import VCEK, VLEK

    wanted = {VCEK: "VCEK", VLEK: "VLEK"}.get(report.signing_key, f"key {report.signing_key}")
    issuer = path.links[1].subject if len(path.links) > 1 else ""
    fits = not issuer or ("CN=SEV-VLEK-" in issuer) == (key.kind == "VLEK")
    found = f"a {key.kind} under {issuer or 'nothing'}"
    rules.check("vek.kind", key.kind == wanted and fits, f"a {wanted} under its authority", found)
    products = {key.product} | ({report.product} if report.version >= 3 else set())
    top = path.links[-1].subject if path.root is not None else ""
    one = len(products) == 1 and (not top or f"CN=ARK-{key.product}" in top)
    found = f"{', '.join(sorted(products))} under {top or 'no root'}"
    rules.check("vek.product", one, "one product in report, key and root", found,
                "the report, its certificate and the root are of different CPU generations")  # fmt: skip
    rules.check("vek.tcb", key.tcb == report.reported_tcb, shared.levels(report.reported_tcb), shared.levels(key.tcb),
                "fetch the certificate of the reported TCB")  # fmt: skip
    if key.kind == "VCEK":
        masked = not any(report.chip_id)
        same = key.hardware_id is not None and key.hardware_id.ljust(64, b"\0") == report.chip_id
        found = "masked by the platform" if masked else "the same" if same else "another chip, or none named"
        rules.check("vek.chip", same or (masked and key.hardware_id is not None), report.chip_id.hex()[:32], found,
                    "the certificate is another chip's")  # fmt: skip


def _judge(report: Report, rules: Rules) -> None:
    policy, platform = report.policy, report.platform_info
    rules.check("report.vmpl", report.vmpl <= 3, "VMPL 0 to 3", f"{report.vmpl:#x}", "the host asked for this report")
    rules.check("policy.format", bool(policy >> _FIXED & 1), "policy bit 17 set", f"{policy:#x}")
    broken = [
        name
        for name, bit, wanted, shown in (
            ("SMT off", _SMT, 0, not platform & 1),
            ("RAPL off", _RAPL_OFF, 1, bool(platform >> 3 & 1)),
            ("ciphertext hiding", _CIPHERTEXT_HIDING, 1, bool(platform >> 4 & 1)),
        )
        if (policy >> bit & 1) == wanted and not shown
    ]
    rules.check("policy.platform", not broken, "a platform that keeps the policy", ", ".join(broken) or "kept")
    rules.caution("policy.debug", not policy >> _DEBUG & 1, "no debugging", f"{policy:#x}", "launch without debug")
    bound = report.report_id_ma not in (b"\xff" * 32, bytes(32))
    migration = bool(policy >> _MIGRATION & 1) or bound
    rules.caution("policy.migration", not migration, "no migration agent", "one is bound" if bound else f"{policy:#x}",
                  "a migration agent can move and copy the guest")  # fmt: skip
    rules.caution("policy.unknown", not policy & ~_KNOWN_POLICY, "known policy bits", f"{policy:#x}")
    current = report.current_tcb
    ordered = current.covers(report.committed_tcb) and current.covers(report.reported_tcb)
    rules.caution(
        "tcb.order", ordered, "committed and reported TCB up to the current one", "so" if ordered else "above it"
    )


def _id_block(report: Report, endorsements: Endorsements, rules: Rules) -> None:
    """Compare the ID block that the owner gave, if any: with one of the two parts alone nothing can be said."""
    parts = [endorsements.collateral.get(name, b"") for name in ("id_block", "id_auth")]
    if not any(parts):
        return
    from casemate.tee.snp import idblock

    try:
        idblock.check(report, parts[0], parts[1], rules)
    except Malformed as error:
        rules.check("idblock.format", False, "an ID block and its authentication", error, "give both, as bytes")
