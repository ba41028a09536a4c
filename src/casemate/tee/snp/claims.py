"""Claims of a verified SNP report: CoCo's names, and the rest of the report under names of its own."""

from __future__ import annotations

from typing import Any

from casemate.crypto.chain import Path
from casemate.tee.snp.report import Report, Tcb
from casemate.tee.snp.vek import Vek


def levels(tcb: Tcb) -> str:
    """A TCB in one line."""
    first = "" if tcb.fmc is None else f"fmc {tcb.fmc}, "
    return f"{first}bootloader {tcb.bootloader}, tee {tcb.tee}, snp {tcb.snp}, microcode {tcb.microcode}"


def values(report: Report, key: Vek, path: Path) -> dict[str, Any]:
    """The values for policies. Digests and ids are hex."""
    policy, platform = report.policy, report.platform_info
    reported = _tcb(report.reported_tcb)
    return {
        "policy_abi_major": policy >> 8 & 0xFF,
        "policy_abi_minor": policy & 0xFF,
        "policy_smt_allowed": bool(policy >> 16 & 1),
        "policy_migrate_ma": bool(policy >> 18 & 1),
        "policy_debug_allowed": bool(policy >> 19 & 1),
        "policy_single_socket": bool(policy >> 20 & 1),
        "platform_smt_enabled": bool(platform & 1),
        "platform_tsme_enabled": bool(platform >> 1 & 1),
        "measurement": report.measurement.hex(),
        "report_data": report.report_data.hex(),
        "init_data": report.host_data.hex(),
        "chip_id": report.chip_id.hex(),
        **{f"reported_tcb_{name}": value for name, value in reported.items()},
        "tcb": {
            "reported": reported,
            "current": _tcb(report.current_tcb),
            "committed": _tcb(report.committed_tcb),
            "launch": _tcb(report.launch_tcb),
        },
        "version": report.version,
        "guest_svn": report.guest_svn,
        "policy": f"{policy:#x}",
        "platform_info": f"{platform:#x}",
        "vmpl": report.vmpl,
        "family_id": report.family_id.hex(),
        "image_id": report.image_id.hex(),
        "id_key_digest": report.id_key_digest.hex(),
        "author_key_digest": report.author_key_digest.hex(),
        "author_key_enabled": bool(report.key_info & 1),
        "report_id": report.report_id.hex(),
        "report_id_ma": report.report_id_ma.hex(),
        "current_build": ".".join(map(str, report.current_build)),
        "committed_build": ".".join(map(str, report.committed_build)),
        "launch_mitigations": f"{report.launch_mitigations:#x}",
        "current_mitigations": f"{report.current_mitigations:#x}",
        "product": key.product,
        "signing_key": key.kind,
        "provider": key.provider,
        "revocation": path.revocation,
    }


def _tcb(tcb: Tcb) -> dict[str, int]:
    found = {"bootloader": tcb.bootloader, "tee": tcb.tee, "snp": tcb.snp, "microcode": tcb.microcode}
    return found if tcb.fmc is None else found | {"fmc": tcb.fmc}
