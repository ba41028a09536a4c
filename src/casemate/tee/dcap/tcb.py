"""Which TCB level a platform, a TDX module and a QE are on, and what they come to together: a claim, not a verdict.

Standard: Intel PCS documentation ("Get TCB Info", "Get Quote Identity": the comparison algorithms); Intel's Quote
Verification Library for how the three converge and for TD relaunch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from casemate.errors import Malformed
from casemate.tee.dcap import collateral
from casemate.tee.dcap.collateral import Level, Module, PlatformLevel, TcbInfo
from casemate.tee.dcap.pck import Pck

UP_TO_DATE, SW_HARDENING = "UpToDate", "SWHardeningNeeded"
CONFIGURATION, CONFIGURATION_AND_SW = "ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded"
OUT_OF_DATE, OUT_OF_DATE_CONFIGURATION = "OutOfDate", "OutOfDateConfigurationNeeded"
RELAUNCH, RELAUNCH_CONFIGURATION = "TDRelaunchAdvised", "TDRelaunchAdvisedConfigurationNeeded"
REVOKED = "Revoked"
_CONFIGURATION = frozenset({CONFIGURATION, CONFIGURATION_AND_SW, OUT_OF_DATE_CONFIGURATION})
KNOWN = frozenset(
    {UP_TO_DATE, SW_HARDENING, CONFIGURATION, CONFIGURATION_AND_SW, OUT_OF_DATE, OUT_OF_DATE_CONFIGURATION, REVOKED}
)


_SW, _CONF, _OLD = "software", "configuration", "patches"
# What a status says is lacking: two together lack what either lacks. `OutOfDate` takes software hardening in.
_LACKS = {
    UP_TO_DATE: frozenset[str](),
    SW_HARDENING: frozenset({_SW}),
    CONFIGURATION: frozenset({_CONF}),
    CONFIGURATION_AND_SW: frozenset({_CONF, _SW}),
    OUT_OF_DATE: frozenset({_OLD, _SW}),
    OUT_OF_DATE_CONFIGURATION: frozenset({_OLD, _CONF, _SW}),
}


@dataclass(frozen=True)
class Found:
    """A matched level: Intel's status, the date of that level, advisories; `svn` shows what was matched."""

    status: str
    date: datetime
    advisories: tuple[str, ...]
    svn: int = -1


def platform(levels: Iterable[PlatformLevel], pck: Pck, tee_tcb_svn: bytes | None) -> tuple[Found | None, Found | None]:
    """(level by the SGX parts alone, level by all parts). For SGX quotes (`tee_tcb_svn` None) both are the same.

    A TDX module that has a version (byte 1) is judged by its own identity, so its two bytes are left out here.
    """
    first: Found | None = None
    for entry in levels:
        if pck.pce_svn < entry.pce_svn or any(a < b for a, b in zip(pck.components, entry.sgx, strict=True)):
            continue
        first = first or _found(entry.level)
        if tee_tcb_svn is None:
            return first, first
        skip = 2 if tee_tcb_svn[1] else 0
        if all(a >= b for a, b in zip(tee_tcb_svn[skip:], entry.tdx[skip:], strict=True)):
            return first, _found(entry.level)
    return first, None


def module_identity(info: TcbInfo, version: int) -> Module | None:
    """The module identity that judges a TDX module of this version; version 0 is judged by `tdx_module`."""
    if version == 0:
        return info.tdx_module
    wanted = f"TDX_{version:02X}"
    return next((m for m in info.tdx_module_identities if m.id.upper() == wanted), None)


def by_isv_svn(levels: tuple[Level, ...], svn: int) -> Found | None:
    """The level of a TDX module or QE with this ISVSVN."""
    return next((_found(level, svn) for least, level in collateral.isv_levels(levels) if svn >= least), None)


def converge(status: str, part: str) -> str:
    """A platform's status after a module's is counted in: whatever either lacks, both together lack."""
    if REVOKED in (status, part):
        return REVOKED
    if status not in _LACKS:  # that a relaunch is advised
        return status
    lacks = _LACKS[status] | _LACKS[part]
    return next(name for name, lacking in _LACKS.items() if lacking == lacks)


def converge_qe(status: str, qe: str) -> str:
    """The same with a QE's status: whatever is neither `UpToDate` nor `Revoked` counts as out of date (Intel QVL)."""
    return converge(status, qe if qe in (UP_TO_DATE, REVOKED) else OUT_OF_DATE)


def relaunch(
    status: str,
    *,
    sgx: Found,
    module: Found,
    qe: Found,
    info: TcbInfo,
    levels: tuple[PlatformLevel, ...],
    tee_tcb_svn2: bytes,
) -> str:
    """`status`, or that a relaunch is advised: the platform is current, but this TD was started by an older module.

    Only where QE and SGX parts are not out of date, the module is, and the module that runs now (`tee_tcb_svn2`) is of
    the newest level (Intel QVL, TDRelaunchCheck).
    """
    current = (UP_TO_DATE, SW_HARDENING, CONFIGURATION, CONFIGURATION_AND_SW)
    if qe.status != UP_TO_DATE or sgx.status not in current:
        return status
    if status not in (OUT_OF_DATE, OUT_OF_DATE_CONFIGURATION) or module.status != OUT_OF_DATE or not levels:
        return status
    newest, least = levels[0].tdx, levels[0].tdx[0]
    if tee_tcb_svn2[1]:
        identity = module_identity(info, tee_tcb_svn2[1])
        ranked = collateral.isv_levels(identity.tcb_levels) if identity else []
        if not ranked:
            return status
        least = ranked[0][0]
    if tee_tcb_svn2[0] < least or tee_tcb_svn2[2] < newest[2]:
        return status
    return RELAUNCH_CONFIGURATION if _CONFIGURATION & {sgx.status, status} else RELAUNCH


def advisories(*parts: Found | None) -> list[str]:
    """The advisories of all parts, each once, in order."""
    return list(dict.fromkeys(a for part in parts if part for a in part.advisories))


def _found(level: Level, svn: int = -1) -> Found:
    if level.tcb_status not in KNOWN:
        raise Malformed(f"collateral: TCB status {level.tcb_status[:64]!r} is not known")
    return Found(level.tcb_status, level.tcb_date, level.advisory_ids, svn)
