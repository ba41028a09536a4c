"""Judge a DCAP quote up to Intel's root, with its collateral, at a given time. The TEE's room judges the body.

Rules (each under the TEE's name)
  quote.vendor          the quoting enclave is Intel's
  pck.*                 the PCK certificate reaches the pinned Intel key, is valid, is not revoked (both lists demanded)
  pck.identity          it is a PCK certificate: its name, its issuer, its SGX extension
  qe.signature          the PCK key signed the QE's report
  qe.binding            the QE's report names the attestation key
  quote.signature       the attestation key signed header and body
  collateral.<name>     each document is there (only absences, and nothing else wrong: `Unusable`)
  tcb_info.*, qe_identity.*   signed by Intel's TCB signing certificate under the pinned key, and in their time
  tcb_info.root, qe_identity.root   that is the root of the PCK certificate: no other anchor speaks for a platform
  tcb.match             the TCB info is about this platform (FMSPC, PCE, TEE)
  qe.identity           signer, product, flags of the QE are those of the QE identity; it is not a debug enclave
  tcb.level, qe.level   a level matches
  tcb.revoked           Intel has not revoked that level
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from types import MappingProxyType

from casemate.crypto import chain, ecdsa, pem
from casemate.errors import Malformed
from casemate.schema.endorsements import Endorsements
from casemate.tee.dcap import collateral, pck, tcb
from casemate.tee.dcap.collateral import Module, QeIdentity, TcbInfo
from casemate.tee.dcap.quote import CERTIFIED_BY_PCK_CHAIN, Quote, TdReport
from casemate.tee.roots import Root, trusted
from casemate.tee.rules import Rules

# SHA-256 of the key (DER SubjectPublicKeyInfo). Two certificates of it circulate (until 2033 and until 2049), and other
# roots have the same subject name, so the key is what counts.
PINS: Mapping[str, str] = MappingProxyType(
    {"Intel SGX Root CA": "a0af031289f5d5d4132f9186068a7fc13628633ba235777472e29b6b6c67a49e"}
)
VENDOR = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
_STALE = "fetch the collateral anew: casemate collateral fetch"


@dataclass
class Platform:
    """What the wall found, filled as far as it got. `root` is None when no trusted root was reached."""

    root: Root | None = None
    pck: pck.Pck | None = None
    pck_certificate: chain.Certificate | None = None
    info: TcbInfo | None = None
    identity: QeIdentity | None = None
    level: tcb.Found | None = None
    module: tcb.Found | None = None
    qe: tcb.Found | None = None
    status: str = ""
    valid_until: datetime | None = None
    issued: tuple[datetime, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether there is enough to make claims of."""
        return None not in (self.root, self.pck, self.info, self.identity, self.level, self.qe)


@dataclass(frozen=True)
class _Scene:
    """What every step needs."""

    tee: str
    quote: Quote
    endorsements: Endorsements
    now: datetime
    rules: Rules
    found: Platform

    def document(self, name: str) -> bytes:
        return self.endorsements.collateral.get(name, b"")

    @property
    def crls(self) -> list[bytes]:
        return [self.document(name) for name in ("pck_crl", "root_ca_crl") if self.document(name)]


def judge(tee: str, quote: Quote, endorsements: Endorsements, now: datetime, rules: Rules) -> Platform:
    """Apply every rule above to `quote`; findings go to `rules`."""
    scene = _Scene(tee, quote, endorsements, now, rules, Platform())
    vendor = quote.header.vendor_id
    rules.check("quote.vendor", vendor == VENDOR, VENDOR.hex(), vendor.hex(), "only Intel's quoting enclave is known")
    _signatures(scene, _pck(scene))
    for name in collateral.missing(endorsements.collateral):
        rules.check(f"collateral.{name}", False, "the document", "absent", _STALE)
    _collateral(scene)
    if scene.found.identity is not None:
        _qe_identity(scene, scene.found.identity)
    if scene.found.info is not None and scene.found.pck is not None:
        _levels(scene, scene.found.info, scene.found.pck)
    return scene.found


def _pck(scene: _Scene) -> object:
    """Walk the PCK chain; returns the PCK's public key, or None."""
    rules, found = scene.rules, scene.found
    try:
        links = _certificates(scene)
        roots = trusted(scene.tee, PINS, links, scene.endorsements)
        path = chain.walk(
            links[: chain.MAX_LENGTH], [r.certificate for r in roots], scene.now,
            rule=f"{scene.tee}.pck", leaf_usages=None, crls=scene.crls,
        )  # fmt: skip
    except Malformed as error:
        rules.check("pck.chain", False, "the certificates of the platform's key", error, "the quote was changed")
        return None
    rules.add(path.findings)
    if path.root is not None:
        found.root = roots[path.root]
        if not path.findings:
            rules.check("pck.chain", True, "a path to a trusted root", found.root.name)
    if scene.crls:
        checked = path.revocation == "checked"
        rules.check("pck.revocation", checked, "a revocation list of each issuer", path.revocation, _STALE)
    _bound(scene, path)
    leaf = path.links[0]
    found.pck_certificate = leaf
    try:
        found.pck = pck.read(leaf.der)
    except Malformed as error:
        rules.check("pck.identity", False, "a PCK certificate", error)
        return leaf.public
    named = "CN=Intel SGX PCK Certificate" in leaf.subject and len(path.links) == 3
    rules.check("pck.identity", named, "a PCK certificate under a PCK authority", leaf.subject)
    return leaf.public


def _certificates(scene: _Scene) -> Sequence[bytes]:
    """The PCK chain, leaf first: from the quote, else from the endorsements (older kinds of certification data)."""
    quote = scene.quote
    if quote.certification_type == CERTIFIED_BY_PCK_CHAIN:
        return pem.certificates(quote.certification, "PCK chain")
    if scene.endorsements.certificates:
        return scene.endorsements.certificates
    raise Malformed(f"the quote's certification data is of type {quote.certification_type}, without certificates")


def _signatures(scene: _Scene, pck_key: object) -> None:
    quote, rules = scene.quote, scene.rules
    hint = "the quote was changed, or its certificates are another platform's"
    ok = ecdsa.verify_p256(pck_key, quote.qe_signature, quote.qe_report_bytes)
    rules.check("qe.signature", ok, "the QE's report signed by the PCK key", "signed" if ok else "not signed", hint)
    named = hashlib.sha256(quote.attestation_key + quote.qe_authentication).digest() + bytes(32)
    rules.equal("qe.binding", named, quote.qe_report.report_data, "the attestation key is not the QE's")
    ok = ecdsa.verify_p256(ecdsa.p256_key(quote.attestation_key), quote.signature, quote.signed)
    rules.check(
        "quote.signature", ok, "the quote signed by the attestation key", "signed" if ok else "not signed", hint
    )


def _collateral(scene: _Scene) -> None:
    found = scene.found
    signed = _signed(scene, "tcb_info")
    if signed is not None:
        try:
            found.info = collateral.tcb_info(signed)[0]
            _in_time(scene, "tcb_info", found.info.issue_date, found.info.next_update)
        except Malformed as error:
            scene.rules.check("tcb_info.format", False, "a TCB info", error, _STALE)
    signed = _signed(scene, "qe_identity")
    if signed is not None:
        try:
            found.identity = collateral.qe_identity(signed)
            _in_time(scene, "qe_identity", found.identity.issue_date, found.identity.next_update)
        except Malformed as error:
            scene.rules.check("qe_identity.format", False, "a QE identity", error, _STALE)


def _signed(scene: _Scene, name: str) -> bytes | None:
    """The text of a signed document, judged; None when it is not there."""
    text, signature = scene.document(name), scene.document(f"{name}_signature")
    issuers = scene.document(f"{name}_issuer_chain")
    if not (text and signature and issuers):
        return None
    rules = scene.rules
    try:
        links = pem.certificates(issuers, f"{name}_issuer_chain")
        roots = trusted(scene.tee, PINS, links, scene.endorsements)
        path = chain.walk(
            links[: chain.MAX_LENGTH], [r.certificate for r in roots], scene.now,
            rule=f"{scene.tee}.{name}", leaf_usages=None, crls=scene.crls,
        )  # fmt: skip
    except Malformed as error:
        rules.check(f"{name}.chain", False, "Intel's signing certificate", error, _STALE)
        return text
    rules.add(path.findings)
    _bound(scene, path)
    signer = path.links[0]
    _same_root(scene, name, roots[path.root] if path.root is not None else None)
    if scene.crls:
        checked = path.revocation == "checked"
        rules.check(f"{name}.revocation", checked, "a revocation list of its issuer", path.revocation, _STALE)
    named = "CN=Intel SGX TCB Signing" in signer.subject and len(path.links) == 2
    rules.check(f"{name}.signer", named, "Intel's TCB signing certificate, directly under the root", signer.subject)
    ok = _signed_by(signer.der, signature, text)
    rules.check(f"{name}.signature", ok, "signed by that certificate", "signed" if ok else "not signed", _STALE)
    return text


def _same_root(scene: _Scene, name: str, root: Root | None) -> None:
    """Certificates of one root key are one root."""
    mine = scene.found.root
    if root is None or mine is None:
        return  # a chain without a root is refused already
    same = chain.load(root.certificate).key_digest == chain.load(mine.certificate).key_digest
    hint = "this document's signer is another vendor than that of the platform's key"
    scene.rules.check(f"{name}.root", same, f"the root of the PCK certificate: {mine.name}", root.name, hint)


@lru_cache(maxsize=128)
def _signed_by(certificate: bytes, signature: bytes, text: bytes) -> bool:
    return ecdsa.verify_p256(chain.load(certificate).cert.public_key(), signature, text)


def _in_time(scene: _Scene, name: str, start: datetime, end: datetime) -> None:
    shown = f"{start:%Y-%m-%dT%H:%M:%SZ} to {end:%Y-%m-%dT%H:%M:%SZ}"
    wanted = f"valid at {scene.now:%Y-%m-%dT%H:%M:%SZ}"
    scene.rules.check(f"{name}.time", start <= scene.now <= end, wanted, shown, _STALE)
    scene.found.issued = (*scene.found.issued, start)
    _until(scene, end)


def _bound(scene: _Scene, path: chain.Path) -> None:
    if path.not_after is not None:
        _until(scene, path.not_after)


def _until(scene: _Scene, end: datetime) -> None:
    scene.found.valid_until = min(scene.found.valid_until or end, end)


def _qe_identity(scene: _Scene, identity: QeIdentity) -> None:
    report, rules = scene.quote.qe_report, scene.rules
    wanted = "TD_QE" if isinstance(scene.quote.body, TdReport) else "QE"
    faults = [] if identity.id == wanted else [f"the identity of {identity.id}, {wanted} wanted"]
    # Intel writes miscselect as the number, the report carries it little-endian; the rest is bytes in order.
    misc = report.misc_select[::-1]
    for name, found, expected, mask in (
        ("miscselect", misc, identity.miscselect, identity.miscselect_mask),
        ("attributes", report.attributes, identity.attributes, identity.attributes_mask),
        ("mrsigner", report.mr_signer, identity.mrsigner, "ff" * 32),
    ):
        if not _masked_equal(found, expected, mask):
            faults.append(f"{name} {found.hex()}")
    if report.isv_prod_id != identity.isvprodid:
        faults.append(f"product {report.isv_prod_id}")
    if report.debug:
        faults.append("it is a debug enclave")
    found_text = ", ".join(faults) or "as stated"
    rules.check("qe.identity", not faults, f"the QE of the QE identity ({wanted})", found_text, "not Intel's enclave")
    scene.found.qe = tcb.by_isv_svn(identity.tcb_levels, report.isv_svn)
    rules.check("qe.level", scene.found.qe is not None, "a level of the QE identity", f"ISVSVN {report.isv_svn}")


def _levels(scene: _Scene, info: TcbInfo, key: pck.Pck) -> None:
    rules, found, body = scene.rules, scene.found, scene.quote.body
    td = body if isinstance(body, TdReport) else None
    wanted = "TDX" if td else "SGX"
    same = (info.id, info.fmspc.lower(), info.pce_id.lower()) == (wanted, key.fmspc.hex(), key.pce_id.hex())
    shown = f"{info.id}, FMSPC {info.fmspc.lower()}, PCE {info.pce_id}"
    rules.check("tcb.match", same, f"{wanted}, FMSPC {key.fmspc.hex()}, PCE {key.pce_id.hex()}", shown, _STALE)
    if not same:
        return
    levels = collateral.tcb_info(scene.document("tcb_info"))[1]
    sgx, full = tcb.platform(levels, key, td.tee_tcb_svn if td else None)
    hint = "this platform is older than all that Intel lists, or newer than the collateral"
    rules.check("tcb.level", full is not None, "a level of the TCB info", full.status if full else "none matches", hint)
    if td is not None:
        found.module = _module(scene, info, td)
    if sgx is None or full is None or found.qe is None or (td and td.tee_tcb_svn[1] and found.module is None):
        return
    found.level = full
    status = tcb.converge(full.status, found.module.status) if found.module else full.status
    if td is not None and td.tee_tcb_svn2 is not None and found.module is not None:
        status = tcb.relaunch(
            status, sgx=sgx, module=found.module, qe=found.qe, info=info, levels=levels, tee_tcb_svn2=td.tee_tcb_svn2
        )
    found.status = tcb.converge_qe(status, found.qe.status)
    revoked = found.status == tcb.REVOKED
    rules.check("tcb.revoked", not revoked, "a TCB that is not revoked", found.status, "Intel revoked this TCB")


def _module(scene: _Scene, info: TcbInfo, td: TdReport) -> tcb.Found | None:
    """Judge the TDX module; returns its level where its version has levels of its own."""
    rules, version = scene.rules, td.tee_tcb_svn[1]
    identity: Module | None = tcb.module_identity(info, version)
    hint = "the TDX module is not Intel's, or newer than the collateral"
    if identity is None:
        rules.check("module.identity", False, f"an identity for module version {version}", "none", hint)
        return None
    genuine = _masked_equal(td.mrsigner_seam, identity.mrsigner, "ff" * 48) and _masked_equal(
        td.seam_attributes, identity.attributes, identity.attributes_mask, strict=True
    )
    shown = f"signer {td.mrsigner_seam.hex()[:16]}..., attributes {td.seam_attributes.hex()}"
    rules.check("module.identity", genuine, f"the TDX module of {identity.id or 'the TCB info'}", shown, hint)
    if version == 0:
        return None
    level = tcb.by_isv_svn(identity.tcb_levels, td.tee_tcb_svn[0])
    rules.check("module.level", level is not None, "a level of the module", f"ISVSVN {td.tee_tcb_svn[0]}", hint)
    return level


def _masked_equal(found: bytes, expected: str, mask: str, *, strict: bool = False) -> bool:
    """Whether `found` has the bits of `expected` (hex) under `mask` (hex); `strict` wants the other bits zero."""
    try:
        wanted, bits = bytes.fromhex(expected), bytes.fromhex(mask)
    except ValueError:
        return False
    if not len(found) == len(wanted) == len(bits):
        return False
    if strict and any(f & ~b & 0xFF for f, b in zip(found, bits, strict=True)):
        return False
    left, right = (bytes(x & b for x, b in zip(part, bits, strict=True)) for part in (found, wanted))
    return hmac.compare_digest(left, right)
