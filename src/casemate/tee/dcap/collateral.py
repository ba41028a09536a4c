"""Intel's collateral: TCB info (v2, v3), QE identity (v2), revocation lists, issuer chains; as named documents.

Standard: Intel SGX and TDX Provisioning Certification Service API, versions 3 and 4.

Names in `Endorsements.collateral`: `tcb_info`, `qe_identity` (the signed text, byte for byte), the same with
`_signature` (64 bytes r | s) and `_issuer_chain` (PEM); `pck_crl`, `root_ca_crl` (DER), `pck_crl_issuer_chain` (PEM).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any

import msgspec

from casemate.errors import Malformed
from casemate.wire.encoding import unhex

NAMES = (
    "tcb_info", "tcb_info_signature", "tcb_info_issuer_chain", "qe_identity", "qe_identity_signature",
    "qe_identity_issuer_chain", "pck_crl", "pck_crl_issuer_chain", "root_ca_crl",
)  # fmt: skip
_HEX = frozenset({"tcb_info_signature", "qe_identity_signature", "pck_crl", "root_ca_crl"})
MAX_DOCUMENT = 1 << 20
Instant = Annotated[datetime, msgspec.Meta(tz=True)]


class Component(msgspec.Struct, frozen=True):
    """One component's SVN."""

    svn: Annotated[int, msgspec.Meta(ge=0, le=255)]


class Tcb(msgspec.Struct, frozen=True):
    """The SVNs of a level: of a platform in v3 (v2's are named one by one and read apart), of a module or QE."""

    sgxtcbcomponents: tuple[Component, ...] = ()
    tdxtcbcomponents: tuple[Component, ...] = ()
    pcesvn: int = -1
    isvsvn: int = -1


class Level(msgspec.Struct, frozen=True, rename="camel"):
    """A TCB level and what Intel says of it."""

    tcb: msgspec.Raw
    tcb_date: Instant
    tcb_status: str
    advisory_ids: tuple[str, ...] = msgspec.field(default=(), name="advisoryIDs")


class Module(msgspec.Struct, frozen=True, rename="camel"):
    """A TDX module's signer and attributes (hex), with levels where it is a versioned identity."""

    mrsigner: str
    attributes: str
    attributes_mask: str
    id: str = ""
    tcb_levels: tuple[Level, ...] = ()


class TcbInfo(msgspec.Struct, frozen=True, rename="camel"):
    """TCB info of one FMSPC."""

    version: int
    issue_date: Instant
    next_update: Instant
    fmspc: str
    pce_id: str
    tcb_type: int
    tcb_evaluation_data_number: int
    tcb_levels: tuple[Level, ...]
    id: str = "SGX"
    tdx_module: Module | None = None
    tdx_module_identities: tuple[Module, ...] = ()


class QeIdentity(msgspec.Struct, frozen=True, rename="camel"):
    """Identity of the quoting enclave."""

    id: str
    version: int
    issue_date: Instant
    next_update: Instant
    tcb_evaluation_data_number: int
    miscselect: str
    miscselect_mask: str
    attributes: str
    attributes_mask: str
    mrsigner: str
    isvprodid: int
    tcb_levels: tuple[Level, ...]


@dataclass(frozen=True)
class PlatformLevel:
    """A level of a TCB info, read: 16 SGX and 16 TDX component SVNs (the latter () for SGX)."""

    sgx: tuple[int, ...]
    tdx: tuple[int, ...]
    pce_svn: int
    level: Level


@lru_cache(maxsize=64)
def tcb_info(text: bytes) -> tuple[TcbInfo, tuple[PlatformLevel, ...]]:
    """Parse a TCB info and its levels, highest first (SGX SVNs, PCE SVN, TDX SVNs), whatever the order of the text."""
    info: TcbInfo = _decode(text, TcbInfo, "tcb_info")
    if info.version not in (2, 3) or (info.version == 2 and info.id != "SGX"):
        raise Malformed(f"tcb_info: version {info.version} of {info.id[:16]!r}, 2 (SGX) and 3 are known")
    levels = [_platform_level(level, info) for level in info.tcb_levels]
    return info, tuple(sorted(levels, key=lambda x: (x.sgx, x.pce_svn, x.tdx), reverse=True))


@lru_cache(maxsize=64)
def qe_identity(text: bytes) -> QeIdentity:
    """Parse a QE identity."""
    found: QeIdentity = _decode(text, QeIdentity, "qe_identity")
    if found.version != 2:
        raise Malformed(f"qe_identity: version {found.version}, 2 is known")
    return found


def isv_levels(levels: tuple[Level, ...]) -> list[tuple[int, Level]]:
    """(ISVSVN, level) of a module's or QE's levels, highest first."""
    found = [(_decode(bytes(level.tcb), Tcb, "tcb").isvsvn, level) for level in levels]
    if any(svn < 0 for svn, _ in found):
        raise Malformed("collateral: a level without isvsvn")
    return sorted(found, key=lambda pair: pair[0], reverse=True)


def from_json(data: bytes) -> dict[str, bytes]:
    """Documents by name from the one JSON object that quote libraries exchange (binary members in hex)."""
    if len(data) > 4 * MAX_DOCUMENT:
        raise Malformed(f"collateral: {len(data)} bytes, at most {4 * MAX_DOCUMENT} allowed")
    try:
        members = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Malformed("collateral: not JSON") from error
    if not isinstance(members, dict):
        raise Malformed("collateral: not a JSON object")
    found = {}
    for name in NAMES:
        value = members.get(name)
        if isinstance(value, str) and len(value) <= 2 * MAX_DOCUMENT:
            found[name] = unhex(value, name) if name in _HEX else value.encode()
    return found


def unwrap(data: bytes, member: str) -> tuple[bytes, bytes]:
    """(signed text, signature) of a service's answer ``{"tcbInfo": {...}, "signature": "hex"}``; `member` is its name.

    The signature is over the bytes as they stand there, so they are cut out, not written anew.
    """
    try:
        text = data.decode("utf-8")
        start = text.find(f'"{member}":')
        outer = json.loads(text)
        if start < 0 or not isinstance(outer, dict) or not isinstance(outer.get("signature"), str):
            raise Malformed(f"collateral: no {member} and signature")
        begin = start + len(member) + 3
        begin += len(text) - begin - len(text[begin:].lstrip())
        _, end = json.JSONDecoder().raw_decode(text, begin)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"collateral: {member} is not JSON") from error
    return text[begin:end].encode(), unhex(outer["signature"], "signature", size=64)


def missing(collateral: Mapping[str, bytes]) -> list[str]:
    """The documents that a verification needs and that are not there."""
    return [n for n in NAMES if n != "pck_crl_issuer_chain" and not collateral.get(n)]


def _platform_level(level: Level, info: TcbInfo) -> PlatformLevel:
    raw = bytes(level.tcb)
    if info.version == 2:
        members = _decode(raw, dict[str, Any], "tcb")
        sgx = tuple(members.get(f"sgxtcbcomp{i:02}svn", -1) for i in range(1, 17))
        if not all(isinstance(svn, int) and 0 <= svn <= 255 for svn in sgx) or not isinstance(
            members.get("pcesvn"), int
        ):
            raise Malformed("tcb_info: a level without its 16 components and pcesvn")
        return PlatformLevel(sgx, (), members["pcesvn"], level)
    tcb = _decode(raw, Tcb, "tcb")
    sgx, tdx = (tuple(c.svn for c in part) for part in (tcb.sgxtcbcomponents, tcb.tdxtcbcomponents))
    if len(sgx) != 16 or len(tdx) != (16 if info.id == "TDX" else 0) or tcb.pcesvn < 0:
        raise Malformed("tcb_info: a level without its 16 components")
    return PlatformLevel(sgx, tdx, tcb.pcesvn, level)


def _decode(text: bytes, kind: Any, name: str) -> Any:
    if len(text) > MAX_DOCUMENT:
        raise Malformed(f"{name}: {len(text)} bytes, at most {MAX_DOCUMENT} allowed")
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"{name}: {error}") from error
