"""An Intel made for tests: root, PCK authority, TCB signing, a platform with its quoting enclave, and collateral.

    platform = FakePlatform("tdx")                              # or "sgx"; version=5 for TD 1.5
    quote = platform.quote(platform.td(report_data=b"..."))     # or platform.enclave(...)
    claims = room.verify(evidence, platform.endorsements, request, platform.now)

`broken` names one fault of `BROKEN`; TCB levels are set by `levels`, `module_levels` and `qe_levels`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from casemate.schema.endorsements import PRODUCTION, Anchor, Endorsements
from casemate.tee.dcap import pck
from casemate.tee.dcap import quote as wire
from casemate.tee.dcap.verify import VENDOR
from casemate.testing import pki
from casemate.testing.pki import der, der_int, der_oid

Level = tuple[int, str, tuple[str, ...]]  # least SVN (of each component, or ISVSVN), status, advisories
FMSPC, PCE_ID, SVN, QE_SVN = bytes.fromhex("90c06f000000"), b"\0\0", 5, 4
_DATE = "2025-01-01T00:00:00Z"


@dataclass
class FakePlatform:
    """A machine of this vendor. `module` is (ISVSVN, version, microcode SVN) of the TDX module; `module2` of TD 1.5."""

    tee: str
    version: int = 0
    now: datetime = pki.NOW
    platform_class: str = PRODUCTION
    levels: tuple[Level, ...] = ((SVN, "UpToDate", ()), (3, "OutOfDate", ("INTEL-SA-00001",)))
    module_levels: tuple[Level, ...] = ((6, "UpToDate", ()), (4, "OutOfDate", ("INTEL-SA-00002",)))
    qe_levels: tuple[Level, ...] = ((QE_SVN, "UpToDate", ()), (2, "OutOfDate", ("INTEL-SA-00003",)))
    module: tuple[int, int, int] = (6, 1, 5)
    module2: tuple[int, int, int] = (6, 1, 5)
    broken: str = ""
    root: pki.Authority = field(default_factory=lambda: pki.Authority("Intel SGX Root CA", pki.p256()))
    collateral: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.broken and self.broken not in BROKEN:
            raise ValueError(f"no fault {self.broken!r}; known: {', '.join(BROKEN)}")
        self.version = self.version or (3 if self.tee == "sgx" else 4)
        self.authority = self.root.subordinate("Intel SGX PCK Platform CA", pki.p256())
        self.pck_key, self.attestation_key, self.signing_key = pki.p256(), pki.p256(), pki.p256()
        self.parts = _Parts(self)
        self.qe = qe_report(self.tee)
        if self.broken:
            BROKEN[self.broken](self, self.parts)
        self.collateral = self.parts.documents() | self.collateral
        for name in self.parts.dropped:
            del self.collateral[name]

    @property
    def endorsements(self) -> Endorsements:
        """Endorsements with this vendor's root as an anchor, and its collateral."""
        anchor = Anchor(
            certificate=self.root.certificate,
            platform_class=self.platform_class,
            name="Fake Intel",
            tees=("sgx", "tdx"),
        )
        return Endorsements(anchors=(anchor,), collateral=dict(self.collateral))

    @property
    def td15(self) -> bool:
        """Whether quotes carry TD 1.5 bodies."""
        return self.tee == "tdx" and self.version == 5

    def enclave(self, **changes: Any) -> bytes:
        """An SGX report body with fields of `EnclaveReport` changed."""
        return enclave_body(
            attributes=b"\5".ljust(16, b"\0"), mr_enclave=b"\x11" * 32, mr_signer=b"\x22" * 32, **changes
        )

    def td(self, **changes: Any) -> bytes:
        """A TD report body with fields of `TdReport` changed."""
        fields = {
            "tee_tcb_svn": bytes(self.module).ljust(16, b"\0"), "mr_seam": b"\x33" * 48, "mrsigner_seam": bytes(48),
            "seam_attributes": bytes(8), "td_attributes": bytes.fromhex("0000001000000000"),
            "xfam": bytes.fromhex("e702060000000000"), "mr_td": b"\x44" * 48, "mr_config_id": bytes(48),
            "mr_owner": bytes(48), "mr_owner_config": bytes(48), "rtmr0": b"\x50" * 48, "rtmr1": b"\x51" * 48,
            "rtmr2": b"\x52" * 48, "rtmr3": bytes(48), "report_data": bytes(64),
        }  # fmt: skip
        if self.td15:
            fields |= {"tee_tcb_svn2": bytes(self.module2).ljust(16, b"\0"), "mr_servicetd": bytes(48)}
        sizes = {name: len(value) for name, value in fields.items()}
        fields |= changes
        return b"".join(fields[name].ljust(size, b"\0") for name, size in sizes.items())

    def quote(self, body: bytes) -> bytes:
        """A quote over `body`, with the fault that `broken` names."""
        tee_type = wire.SGX if self.tee == "sgx" else wire.TDX
        signed = (
            _u16(self.version) + _u16(2) + tee_type.to_bytes(4, "little") + bytes(4) + self.parts.vendor + bytes(20)
        )
        if self.version == 5:
            kind = {384: wire.BODY_SGX, 584: wire.BODY_TD10, 648: wire.BODY_TD15}[len(body)]
            signed += _u16(kind) + len(body).to_bytes(4, "little")
        signed += body
        point, authentication = _point(self.attestation_key), b"authentication data"
        named = hashlib.sha256(point + authentication + self.parts.misbind).digest()
        qe = enclave_body(**self.qe, report_data=named)
        part = qe + raw_sign(self.pck_key, qe + self.parts.qe_noise) + _sized16(authentication)
        part += _u16(wire.CERTIFIED_BY_PCK_CHAIN) + _sized32(pki.pem(*self.parts.pck_chain))
        section = raw_sign(self.attestation_key, signed + self.parts.quote_noise) + point
        section += part if self.version == 3 else _u16(wire.CERTIFIED_BY_QE_REPORT) + _sized32(part)
        return signed + _sized32(section)


@dataclass
class _Parts:
    """Everything a fault may change before documents and quotes are made."""

    platform: FakePlatform
    vendor: bytes = VENDOR
    misbind: bytes = b""
    qe_noise: bytes = b""
    quote_noise: bytes = b""
    document_noise: bytes = b""
    pck_svn: int = SVN
    pck_name: str = "Intel SGX PCK Certificate"
    signer_name: str = "Intel SGX TCB Signing"
    info: dict[str, Any] = field(default_factory=dict)
    identity: dict[str, Any] = field(default_factory=dict)
    revoked_pck: bool = False
    revoked_ca: bool = False
    dropped: tuple[str, ...] = ()
    pck_window: tuple[datetime, datetime] = (pki.START, pki.END)
    crl_end: timedelta = timedelta(days=30)
    _chain: tuple[bytes, ...] = ()
    signer_issuer: pki.Authority | None = None

    @property
    def pck_chain(self) -> tuple[bytes, ...]:
        if not self._chain:
            p = self.platform
            extension = (pck.OID, pck_extension(self.pck_svn), False)
            leaf = p.authority.issue(self.pck_name, p.pck_key, window=self.pck_window, extensions=[extension])
            self._chain = (leaf, p.authority.certificate, p.root.certificate)
        return self._chain

    @pck_chain.setter
    def pck_chain(self, value: tuple[bytes, ...]) -> None:
        self._chain = value

    def documents(self) -> dict[str, bytes]:
        p = self.platform
        info = json.dumps(tcb_info(p) | self.info).encode()
        identity = json.dumps(qe_identity(p) | self.identity).encode()
        signer = (self.signer_issuer or p.root).issue(self.signer_name, p.signing_key)
        issuers = pki.pem(signer, *([self.signer_issuer.certificate] if self.signer_issuer else []), p.root.certificate)
        start, end = p.now - timedelta(days=1), p.now + self.crl_end
        return {
            "tcb_info": info,
            "tcb_info_signature": raw_sign(p.signing_key, info + self.document_noise),
            "tcb_info_issuer_chain": issuers,
            "qe_identity": identity,
            "qe_identity_signature": raw_sign(p.signing_key, identity),
            "qe_identity_issuer_chain": issuers,
            "pck_crl": p.authority.crl(self.pck_chain[:1] if self.revoked_pck else (), start=start, end=end),
            "pck_crl_issuer_chain": pki.pem(p.authority.certificate, p.root.certificate),
            "root_ca_crl": p.root.crl(
                [p.authority.certificate] if self.revoked_ca else (), start=start, end=p.now + timedelta(days=30)
            ),
        }


def enclave_body(**fields: Any) -> bytes:
    """384 bytes of an SGX report body; fields of `EnclaveReport`, zeros where not given."""
    sizes = {
        "cpu_svn": 16, "misc_select": 4, "reserved1": 12, "isv_ext_prod_id": 16, "attributes": 16, "mr_enclave": 32,
        "reserved2": 32, "mr_signer": 32, "reserved3": 32, "config_id": 64, "isv_prod_id": 2, "isv_svn": 2,
        "config_svn": 2, "reserved4": 42, "isv_family_id": 16, "report_data": 64,
    }  # fmt: skip
    out = b""
    for name, size in sizes.items():
        value = fields.get(name, b"")
        out += value.to_bytes(size, "little") if isinstance(value, int) else value.ljust(size, b"\0")
    return out


def qe_report(tee: str) -> dict[str, Any]:
    """The quoting enclave's fields."""
    product = 1 if tee == "sgx" else 2
    return {
        "attributes": b"\x11".ljust(16, b"\0"),
        "mr_signer": b"\xdc" * 32,
        "isv_prod_id": product,
        "isv_svn": QE_SVN,
    }


def qe_identity(platform: FakePlatform) -> dict[str, Any]:
    """The QE identity document."""
    sgx = platform.tee == "sgx"
    return {
        "id": "QE" if sgx else "TD_QE", "version": 2, **_window(platform), "tcbEvaluationDataNumber": 17,
        "miscselect": "00000000", "miscselectMask": "FFFFFFFF", "attributes": "11" + "00" * 15,
        "attributesMask": "FB" + "FF" * 7 + "00" * 8, "mrsigner": "DC" * 32, "isvprodid": 1 if sgx else 2,
        "tcbLevels": [_level({"isvsvn": svn}, status, ids) for svn, status, ids in platform.qe_levels],
    }  # fmt: skip


def tcb_info(platform: FakePlatform) -> dict[str, Any]:
    """The TCB info document (version 3)."""
    sgx = platform.tee == "sgx"
    levels = []
    for svn, status, ids in platform.levels:
        tcb: dict[str, Any] = {"sgxtcbcomponents": [{"svn": svn}] * 16, "pcesvn": svn}
        if not sgx:
            tcb["tdxtcbcomponents"] = [{"svn": s} for s in (svn, 0, svn, *[0] * 13)]
        levels.append(_level(tcb, status, ids))
    info = {
        "id": "SGX" if sgx else "TDX", "version": 3, **_window(platform), "fmspc": FMSPC.hex().upper(),
        "pceId": PCE_ID.hex(), "tcbType": 0, "tcbEvaluationDataNumber": 17, "tcbLevels": levels,
    }  # fmt: skip
    if sgx:
        return info
    module = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}
    module_levels = [_level({"isvsvn": svn}, status, ids) for svn, status, ids in platform.module_levels]
    return info | {"tdxModule": module, "tdxModuleIdentities": [{"id": "TDX_01", **module, "tcbLevels": module_levels}]}


def pck_extension(svn: int = SVN) -> bytes:
    """The SGX extension with every component and the PCE at `svn`."""

    def pair(arc: str, value: bytes) -> bytes:
        return der(0x30, der_oid(f"{pck.OID}.{arc}") + value)

    tcb = b"".join(pair(f"2.{i}", der_int(svn)) for i in range(1, 18)) + pair("2.18", der(0x04, bytes([svn]) * 16))
    config = b"".join(pair(f"7.{i}", der(0x01, b"\xff")) for i in (1, 2, 3))
    entries = [
        pair("1", der(0x04, b"\xab" * 16)), pair("2", der(0x30, tcb)), pair("3", der(0x04, PCE_ID)),
        pair("4", der(0x04, FMSPC)), pair("5", der(0x0A, b"\1")), pair("6", der(0x04, b"\xcd" * 16)),
        pair("7", der(0x30, config)),
    ]  # fmt: skip
    return der(0x30, b"".join(entries))


def raw_sign(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    """ECDSA P-256 with SHA-256 as r | s."""
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def _point(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]


def _level(tcb: dict[str, Any], status: str, ids: tuple[str, ...]) -> dict[str, Any]:
    return {"tcb": tcb, "tcbDate": _DATE, "tcbStatus": status, "advisoryIDs": list(ids)}


def _window(platform: FakePlatform) -> dict[str, str]:
    start, end = platform.now - timedelta(days=10), platform.now + timedelta(days=20)
    return {"issueDate": f"{start:%Y-%m-%dT%H:%M:%SZ}", "nextUpdate": f"{end:%Y-%m-%dT%H:%M:%SZ}"}


def _u16(value: int) -> bytes:
    return value.to_bytes(2, "little")


def _sized16(data: bytes) -> bytes:
    return _u16(len(data)) + data


def _sized32(data: bytes) -> bytes:
    return len(data).to_bytes(4, "little") + data


Fault = Callable[[FakePlatform, _Parts], None]


def _set(**values: Any) -> Fault:
    def apply(_platform: FakePlatform, parts: _Parts) -> None:
        for name, value in values.items():
            setattr(parts, name, value)

    return apply


def _qe(**values: Any) -> Fault:
    def apply(platform: FakePlatform, _parts: _Parts) -> None:
        platform.qe |= values

    return apply


def _other_root(platform: FakePlatform, parts: _Parts) -> None:
    root = pki.Authority(platform.root.name, pki.p256())
    authority = root.subordinate(platform.authority.name, pki.p256())
    extension = (pck.OID, pck_extension(), False)
    leaf = authority.issue("Intel SGX PCK Certificate", platform.pck_key, extensions=[extension])
    parts.pck_chain = (leaf, authority.certificate, root.certificate)


def _no_extension(platform: FakePlatform, parts: _Parts) -> None:
    leaf = platform.authority.issue("Intel SGX PCK Certificate", platform.pck_key)
    parts.pck_chain = (leaf, platform.authority.certificate, platform.root.certificate)


def _signer_below_pck_authority(platform: FakePlatform, parts: _Parts) -> None:
    parts.signer_issuer = platform.authority


BROKEN: dict[str, Fault] = {
    "quote-signature": _set(quote_noise=b"x"),
    "qe-signature": _set(qe_noise=b"x"),
    "qe-binding": _set(misbind=b"x"),
    "vendor": _set(vendor=bytes(16)),
    "other-root": _other_root,
    "pck-expired": _set(pck_window=(pki.START, pki.NOW - timedelta(days=1))),
    "pck-not-yet-valid": _set(pck_window=(pki.NOW + timedelta(days=1), pki.END)),
    "pck-revoked": _set(revoked_pck=True),
    "pck-authority-revoked": _set(revoked_ca=True),
    "pck-name": _set(pck_name="Intel SGX Something"),
    "pck-no-extension": _no_extension,
    "crl-expired": _set(crl_end=timedelta(hours=-1)),
    "no-pck-crl": _set(dropped=("pck_crl",)),
    "no-root-crl": _set(dropped=("root_ca_crl",)),
    "no-tcb-info": _set(dropped=("tcb_info",)),
    "no-qe-identity": _set(dropped=("qe_identity", "qe_identity_signature")),
    "tcb-info-signature": _set(document_noise=b"x"),
    "tcb-info-expired": _set(info={"nextUpdate": "2026-05-01T00:00:00Z"}),
    "tcb-info-early": _set(info={"issueDate": "2026-07-01T00:00:00Z"}),
    "tcb-info-fmspc": _set(info={"fmspc": "00906ED50000"}),
    "tcb-info-pce": _set(info={"pceId": "0001"}),
    "tcb-info-tee": _set(info={"id": "OTHER"}),
    "qe-identity-expired": _set(identity={"nextUpdate": "2026-05-01T00:00:00Z"}),
    "qe-identity-tee": _set(identity={"id": "QVE"}),
    "signer-name": _set(signer_name="Intel SGX PCK Certificate"),
    "signer-issuer": _signer_below_pck_authority,
    "no-level": _set(pck_svn=1),
    "qe-signer": _qe(mr_signer=b"\1" * 32),
    "qe-product": _qe(isv_prod_id=9),
    "qe-debug": _qe(attributes=b"\x13".ljust(16, b"\0")),
    "qe-misc": _qe(misc_select=b"\1\0\0\0"),
    "qe-level": _qe(isv_svn=1),
}
