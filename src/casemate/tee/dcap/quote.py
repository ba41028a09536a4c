"""Wire layout of DCAP quotes, versions 3, 4 and 5, with their report bodies. All integers are little-endian.

Standard: Intel SGX ECDSA Quote Library Reference (v3), Intel TDX DCAP Quoting Library API (v4, v5), appendix A.

    header 48   version u16 | key type u16 | TEE type u32 | QE SVN u16 | PCE SVN u16 | vendor 16 | user data 20
    v5 only     body type u16 | body size u32
    body        SGX 384 | TD 1.0 584 | TD 1.5 648
    signature   size u32 | signature 64 | attestation key 64 | (v3) QE part; (v4, v5) type 6 u16 | size u32 | QE part
    QE part     QE report 384 | signature 64 | size u16 | authentication data | type u16 | size u32 | certification data

Bytes behind the signature's size are padding of the buffer that carried the quote; they are counted, not believed.
"""

from __future__ import annotations

from dataclasses import dataclass

from casemate.errors import Malformed
from casemate.wire.cursor import Cursor

MAX_QUOTE = 64 << 10
KEY_P256, KEY_P384 = 2, 3  # of the second the standard says no more than its number: it can't be read
SGX, TDX = 0x00000000, 0x00000081
BODY_SGX, BODY_TD10, BODY_TD15 = 1, 2, 3
BODY_SIZES = {BODY_SGX: 384, BODY_TD10: 584, BODY_TD15: 648}
CERTIFIED_BY_PCK_CHAIN, CERTIFIED_BY_QE_REPORT = 5, 6


@dataclass(frozen=True)
class Header:
    """The 48 bytes before the body."""

    version: int
    key_type: int
    tee_type: int
    qe_svn: bytes
    pce_svn: bytes
    vendor_id: bytes
    user_data: bytes


@dataclass(frozen=True)
class EnclaveReport:
    """An SGX report body (also the QE's). `attributes` are flags (8 bytes) and XFRM (8 bytes)."""

    cpu_svn: bytes
    misc_select: bytes
    reserved1: bytes
    isv_ext_prod_id: bytes
    attributes: bytes
    mr_enclave: bytes
    reserved2: bytes
    mr_signer: bytes
    reserved3: bytes
    config_id: bytes
    isv_prod_id: int
    isv_svn: int
    config_svn: int
    reserved4: bytes
    isv_family_id: bytes
    report_data: bytes

    @property
    def debug(self) -> bool:
        """The DEBUG flag: the enclave's memory can be read."""
        return bool(self.attributes[0] & 2)


@dataclass(frozen=True)
class TdReport:
    """A TD report body. `tee_tcb_svn2` and `mr_servicetd` are None in TD 1.0."""

    tee_tcb_svn: bytes
    mr_seam: bytes
    mrsigner_seam: bytes
    seam_attributes: bytes
    td_attributes: bytes
    xfam: bytes
    mr_td: bytes
    mr_config_id: bytes
    mr_owner: bytes
    mr_owner_config: bytes
    rtmrs: tuple[bytes, bytes, bytes, bytes]
    report_data: bytes
    tee_tcb_svn2: bytes | None = None
    mr_servicetd: bytes | None = None


@dataclass(frozen=True)
class Quote:
    """A parsed quote. `signed` is what the attestation key signed; `trailing` counts bytes of padding."""

    header: Header
    body_type: int
    body: EnclaveReport | TdReport
    signed: bytes
    signature: bytes
    attestation_key: bytes
    qe_report: EnclaveReport
    qe_report_bytes: bytes
    qe_signature: bytes
    qe_authentication: bytes
    certification_type: int
    certification: bytes
    trailing: int


def parse(data: bytes) -> Quote:
    """Parse a quote of version 3, 4 or 5."""
    if len(data) > MAX_QUOTE:
        raise Malformed(f"quote: {len(data)} bytes, at most {MAX_QUOTE} allowed")
    read = Cursor(data, "quote")
    header = _header(read)
    body_type = _body_type(read, header)
    body_bytes = read.take(BODY_SIZES[body_type])
    body = parse_enclave(body_bytes) if body_type == BODY_SGX else parse_td(body_bytes)
    signed = data[: read.offset]
    section = Cursor(read.take(read.u32()), "quote signature")
    signature, key = section.take(64), section.take(64)
    if header.version > 3:
        kind = section.u16()
        if kind != CERTIFIED_BY_QE_REPORT:
            raise Malformed(f"quote: certification data of type {kind}, {CERTIFIED_BY_QE_REPORT} wanted")
        nested = section.take(section.u32())
        section.end()
        section = Cursor(nested, "quote certification data")
    qe_report, qe_signature = section.take(384), section.take(64)
    authentication = section.take(section.u16())
    kind = section.u16()
    certification = section.take(section.u32())
    section.end()
    return Quote(
        header, body_type, body, signed, signature, key, parse_enclave(qe_report), qe_report, qe_signature,
        authentication, kind, certification, read.remaining,
    )  # fmt: skip


def parse_enclave(data: bytes) -> EnclaveReport:
    """Parse the 384 bytes of an SGX report body."""
    read = Cursor(data, "SGX report")
    found = EnclaveReport(
        cpu_svn=read.take(16), misc_select=read.take(4), reserved1=read.take(12), isv_ext_prod_id=read.take(16),
        attributes=read.take(16), mr_enclave=read.take(32), reserved2=read.take(32), mr_signer=read.take(32),
        reserved3=read.take(32), config_id=read.take(64), isv_prod_id=read.u16(), isv_svn=read.u16(),
        config_svn=read.u16(), reserved4=read.take(42), isv_family_id=read.take(16), report_data=read.take(64),
    )  # fmt: skip
    read.end()
    return found


def parse_td(data: bytes) -> TdReport:
    """Parse the 584 bytes of a TD 1.0 report body or the 648 of TD 1.5."""
    read = Cursor(data, "TD report")
    found = TdReport(
        tee_tcb_svn=read.take(16), mr_seam=read.take(48), mrsigner_seam=read.take(48), seam_attributes=read.take(8),
        td_attributes=read.take(8), xfam=read.take(8), mr_td=read.take(48), mr_config_id=read.take(48),
        mr_owner=read.take(48), mr_owner_config=read.take(48),
        rtmrs=(read.take(48), read.take(48), read.take(48), read.take(48)), report_data=read.take(64),
        tee_tcb_svn2=read.take(16) if read.remaining else None, mr_servicetd=read.take(48) if read.remaining else None,
    )  # fmt: skip
    read.end()
    return found


def _header(read: Cursor) -> Header:
    found = Header(
        version=read.u16(), key_type=read.u16(), tee_type=read.u32(), qe_svn=read.take(2), pce_svn=read.take(2),
        vendor_id=read.take(16), user_data=read.take(20),
    )  # fmt: skip
    if found.version not in (3, 4, 5):
        raise Malformed(f"quote: version {found.version}, 3 to 5 are known")
    if found.key_type == KEY_P384:
        raise Malformed("quote: an attestation key on P-384 (type 3), whose quotes have no defined layout")
    if found.key_type != KEY_P256:
        raise Malformed(f"quote: attestation key of type {found.key_type}, ECDSA P-256 ({KEY_P256}) wanted")
    return found


def _body_type(read: Cursor, header: Header) -> int:
    """The type of the body; it must agree with the TEE type of the header."""
    if header.version < 5:
        found = BODY_TD10 if header.version == 4 and header.tee_type == TDX else BODY_SGX
    else:
        found, size = read.u16(), read.u32()
        if BODY_SIZES.get(found) != size:
            raise Malformed(f"quote: a body of type {found} with {size} bytes")
    if header.tee_type != (SGX if found == BODY_SGX else TDX):
        raise Malformed(f"quote: TEE type {header.tee_type:#x} does not fit version {header.version}, body {found}")
    return found
