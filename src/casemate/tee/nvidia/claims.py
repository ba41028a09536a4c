"""Claims of verified NVIDIA devices: CoCo's names (`config.*`, `measurements`), and what Casemate adds."""

from __future__ import annotations

from typing import Any

from casemate.tee.nvidia import report as wire
from casemate.tee.nvidia.identity import Identity
from casemate.tee.nvidia.report import Device, Report


def values(
    device: Device, report: Report, identity: Identity, revocation: str, vouched: dict[str, str]
) -> dict[str, Any]:
    """The values of one device. Digests and opaque bytes are hex; `rims` names the manifests that vouch for it."""
    return {
        "class": "switch" if device.arch == wire.SWITCH else "gpu",
        "arch": device.arch,
        "uuid": device.uuid,
        "measurements": [value.hex() for _, value in sorted(report.measurements.items())],
        "config": _config(report),
        "chip": identity.chip,
        "name": identity.name,
        "certified_fwid": identity.fwid.hex(),
        "opaque": {str(field): value.hex() for field, value in sorted(report.opaque.items())},
        "rims": vouched,
        "revocation": revocation,
    }


def _config(report: Report) -> dict[str, Any]:
    """CoCo's names. `measurement_count` says how often each register was extended."""
    counts = report.opaque.get(wire.COUNTS, b"")
    return {
        "board_id": report.opaque.get(wire.BOARD_ID, b"").hex(),
        "chip_sku": report.word(wire.CHIP_SKU),
        "chip_sku_mod": report.word(wire.CHIP_SKU_MOD),
        "cpr_info": report.opaque.get(wire.CPR_INFO, b"").hex(),
        "driver_version": report.driver,
        "fwid": report.opaque.get(wire.FWID, b"").hex(),
        "gpu_info": report.opaque.get(wire.GPU_INFO, b"").hex(),
        "measurement_count": [int.from_bytes(counts[i : i + 4], "little") for i in range(0, len(counts), 4)],
        "nvdec0_status": _status(report.flag(wire.NVDEC0)),
        "project": report.word(wire.PROJECT),
        "project_sku": report.word(wire.PROJECT_SKU),
        "project_sku_mod": report.word(wire.PROJECT_SKU_MOD),
        "protected_pcie_status": _status(report.flag(wire.PROTECTED_PCIE)),
        "vbios_version": report.vbios,
    }


def _status(flag: bool | None) -> str:
    return {True: "enabled", False: "disabled"}.get(flag, "") if flag is not None else ""
