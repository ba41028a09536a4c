"""Apply the rules of the TPM room, which `verify.py` lists. Imported only where evidence is judged."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_der_public_key

from casemate.boot import eventlog, logfacts
from casemate.boot.eventlog import EventLog
from casemate.crypto import chain
from casemate.crypto.chain import Path
from casemate.errors import Malformed, Unusable
from casemate.schema.endorsements import DEVELOPMENT, Endorsements
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request
from casemate.tee.rules import Rules
from casemate.tee.tpm import report as wire
from casemate.wire.encoding import b64

NAME = "tpm"
INITDATA_PCR = 8
# PCR 10 is the kernel's own (IMA) and has its own log, which is not part of the evidence.
_UNLOGGED = frozenset({10})
# PCR 8 is extended by the measured initrd, before it reads anything else from the host, without a log entry. It is
# exempt from replay only because the initdata rule then demands its exact value.
_ALL = tuple(range(wire.PCR_COUNT))
_BANKS = ("sha256", "sha384", "sha512", "sha1")
_ONE_BANK = f"0-23 of one bank: {', '.join(_BANKS)}"
_BANK_OF = {eventlog.SIZES[bank]: bank for bank in _BANKS}
GIVEN = f"{NAME}.key"  # documents of that name are AKs (DER) that the relying party gave
_KNOWN = frozenset(_ALL)
_NAMES, _COCO_NAMES = tuple(f"pcr{i}" for i in _ALL), tuple(f"pcr{i:02}" for i in _ALL)
_HASHERS: dict[str, hashes.HashAlgorithm] = {
    "sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "sha512": hashes.SHA512(),
}  # fmt: skip
# tcg-kp-AIKCertificate; tcg-kp-EKCertificate because Google's vTPM uses it for its AKs (with digitalSignature).
_LEAF_USAGES = frozenset({"2.23.133.8.3", "2.23.133.8.1"})


def judge(evidence: Evidence, endorsements: Endorsements, request: Request, now: datetime) -> dict[str, Any]:
    """The members of the claims, for `verify.verify`, which alone makes them; `Refused` as it says."""
    if evidence.tee != NAME:
        raise Unusable(f"evidence of {evidence.tee[:32]!r} was given to the TPM room")
    report = wire.parse_evidence(evidence.primary)
    rules = Rules(NAME)
    voucher = _ak(report, endorsements, now, rules)
    attest = _quote(report, request, rules)
    digest = _initdata_digest(evidence, request, rules)
    bank = attest.selections[0][0] if attest and attest.selections else ""
    log = _log(report, bank, digest, rules) if bank in _BANKS else None
    _initdata(report, bank, digest, rules)
    if rules.failed or attest is None or log is None or voucher is None:
        raise rules.refusal()
    pcrs = b"".join(report.pcrs).hex(" ", eventlog.SIZES[bank]).split(" ")
    return {
        "tee": NAME,
        "platform_class": voucher.platform_class,
        "memory_encrypted": False,  # a TPM measures; it never keeps the host out of memory
        "debug": False,
        "measurement": dict(zip(_NAMES, pcrs, strict=True)),
        "report_data": attest.extra_data.hex(),
        "init_data": pcrs[INITDATA_PCR],
        "fresh": request.report_data is not None,
        "vouched_by": voucher.name,
        "values": _values(pcrs, report, attest, log, voucher),
        "checks": tuple(rules.checks),
        "cautions": tuple(rules.cautions),
        "valid_until": voucher.not_after,
    }


@dataclass(frozen=True)
class _Voucher:
    """Who vouches for the AK, until when, and whether a revocation list was asked."""

    platform_class: str
    name: str
    not_after: datetime | None
    revocation: str


def _ak(report: wire.Report, endorsements: Endorsements, now: datetime, rules: Rules) -> _Voucher | None:
    given = [data for name, data in endorsements.collateral.items() if name.startswith(GIVEN)]
    if any([hmac.compare_digest(report.ak_public, key) for key in given]):  # noqa: C419 - each is compared
        name = f"an AK that was given (sha256 {hashlib.sha256(report.ak_public).hexdigest()[:16]}...)"
        rules.check("ak.given", True, "a chain, or a key that the relying party gave", "a key that was given")
        return _Voucher(DEVELOPMENT, name, None, "not checked")
    anchors = endorsements.anchors_for(NAME)
    path = _path(report, endorsements, [a.certificate for a in anchors], now, rules)
    if path is None or path.root is None:
        return None
    anchor = anchors[path.root]
    return _Voucher(anchor.platform_class, anchor.name or "an anchor without a name", path.not_after, path.revocation)


def _path(
    report: wire.Report, endorsements: Endorsements, roots: list[bytes], now: datetime, rules: Rules
) -> Path | None:
    crls = [data for name, data in endorsements.collateral.items() if name.endswith(".crl")]
    try:
        path = chain.walk(
            [*report.ak_chain, *endorsements.certificates][: chain.MAX_LENGTH] if report.ak_chain else [],
            roots,
            now,
            rule="tpm.ak",
            leaf_usages=_LEAF_USAGES,
            crls=crls,
        )
    except Malformed as error:
        rules.check("ak.chain", False, "X.509 certificates", error, "`found` names the one that cannot be read")
        return None
    rules.add(path.findings)
    if not path.findings:
        revocation = path.revocation if crls else "no revocation list was given"
        rules.check("ak.chain", True, "a path to a trusted root", f"root {path.root}, {revocation}")
    same = bool(path.leaf_key) and hmac.compare_digest(path.leaf_key, report.ak_public)
    rules.check(
        "ak.key",
        same,
        "the key of the AK certificate",
        "the same key" if same else "another key, or no certificate",
        "ak_public must be the key that the first certificate of ak_chain certifies",
    )
    return path


def _quote(report: wire.Report, request: Request, rules: Rules) -> wire.Attest | None:
    genuine = signed(report)
    rules.check(
        "quote.signature",
        genuine,
        "a signature by ak_public",
        "one" if genuine else "none that verifies",
        "the quote was changed, or another key signed it",
    )
    try:
        attest = wire.parse_attest(report.message)
    except Malformed as error:
        rules.check("quote.format", False, "a TPMS_ATTEST of type quote", error, "ask the TPM for a quote")
        return None
    rules.check("quote.format", True, "a TPMS_ATTEST of type quote", "one")
    _nonce(attest, request, rules)
    _registers(report, attest, rules)
    rules.check(
        "quote.clock",
        attest.safe,
        "a TPM that was shut down in order",
        "in order" if attest.safe else "not in order: its clock may have gone back",
        "start the VM with a fresh TPM state",
    )
    return attest


def _registers(report: wire.Report, attest: wire.Attest, rules: Rules) -> None:
    """One whole bank is quoted, and the registers that came along are its."""
    bank = attest.selections[0][0] if attest.selections else ""
    all_of_them = attest.selections == ((bank, _ALL),) and bank in _BANKS
    shown = f"{bank}:0-23" if all_of_them else _shown(attest)
    hint = "quote all PCRs of one bank, best SHA-256"
    whole = rules.check("quote.selection", all_of_them, _ONE_BANK, shown, hint)
    if whole:
        rules.caution(
            "quote.bank", bank != "sha1", "a bank of SHA-256 or better", bank, "SHA-1 registers can be forged"
        )
    # What was parsed has registers of one size: the first one's.
    sized = not whole or not report.pcrs or len(report.pcrs[0]) == eventlog.SIZES[bank]
    count = len(report.pcrs) == wire.PCR_COUNT and sized
    found = f"{len(report.pcrs)} of {len(report.pcrs[0])} bytes" if report.pcrs else "none"
    fits = rules.check("quote.count", count, "24 PCRs of that bank", found, "send all PCRs of the bank")
    if whole and fits:
        # TPM 2.0 Part 3 section 18.4: the digest is made with the hash of the signing scheme, not of the bank.
        hasher = {32: hashlib.sha256, 48: hashlib.sha384, 64: hashlib.sha512}.get(len(attest.pcr_digest))
        computed = hasher(b"".join(report.pcrs)).digest() if hasher else b""
        rules.check(
            "quote.pcrs",
            hmac.compare_digest(computed, attest.pcr_digest) and bool(computed),
            "PCRs with the quoted digest " + attest.pcr_digest.hex(),
            "PCRs with the digest " + computed.hex(),
            "the PCR list does not belong to this quote",
        )


def _nonce(attest: wire.Attest, request: Request, rules: Rules) -> None:
    if request.report_data is None:
        return
    if not request.report_data:
        raise Unusable("report data of no bytes asks for nothing", hint="give the nonce that the quote was asked for")
    rules.check(
        "quote.nonce",
        hmac.compare_digest(attest.extra_data, request.report_data[:32]),
        request.report_data[:32].hex(),
        attest.extra_data.hex() or "nothing",
        "the evidence was made for another request: ask for it again",
    )


def _initdata_digest(evidence: Evidence, request: Request, rules: Rules) -> bytes | None:
    """The digest that PCR 8 must show: the requested one, else that of the document which came along."""
    if evidence.initdata is None:
        return request.initdata_digest
    document = hashlib.sha256(evidence.initdata).digest()
    if request.initdata_digest is not None:
        rules.check(
            "initdata.document",
            hmac.compare_digest(document, request.initdata_digest),
            request.initdata_digest.hex(),
            document.hex(),
            "the document that came with the evidence is not the one that was expected",
        )
        return request.initdata_digest
    return document


def _log(report: wire.Report, bank: str, initdata_digest: bytes | None, rules: Rules) -> EventLog | None:
    if report.event_log is None:
        rules.check("log.present", False, "the firmware's event log", "none", "send event_log with the quote")
        return None
    try:
        log = eventlog.parse(report.event_log)
        replayed = eventlog.replay(log, bank, eventlog.tpm_initial(bank, log.locality))
    except Malformed as error:
        rules.check("log.format", False, f"a TCG2 event log with {bank} digests", error, "send it as firmware made it")
        return None
    exempt = _UNLOGGED | ({INITDATA_PCR} if initdata_digest is not None else set())
    known = _KNOWN.issuperset(replayed)
    found = "PCRs 0 to 23" if known else sorted(replayed.keys() - _KNOWN)
    rules.check("log.registers", known, "PCRs 0 to 23", found, "the log is not a TPM's")
    unequal = [i for i, p in enumerate(report.pcrs) if replayed[i] != p and i not in exempt]
    differing = _without_exit(report, log, replayed, unequal, rules) if unequal else unequal
    for index in differing:
        rule = "initdata" if index == INITDATA_PCR else "log.replay"
        rules.check(
            rule,
            False,
            f"PCR {index} = {replayed[index].hex()} by the log",
            f"PCR {index} = {report.pcrs[index].hex()} in the quote",
            _HINTS.get(index, "the log is incomplete, or something extended this PCR without logging it"),
        )
    if not differing:
        apart = tuple(sorted({*exempt, *unequal}))
        rules.check("log.replay", True, f"PCRs as quoted, except {_ranges(apart)}", "as quoted")
    return log


def _without_exit(
    report: wire.Report, log: EventLog, replayed: dict[int, bytes], differing: list[int], rules: Rules
) -> list[int]:
    """`differing` without PCR 5, where the one known reason explains it: then it is a caution that has a name."""
    register = eventlog.EXIT_REGISTER
    if register not in differing:
        return differing
    explained = eventlog.after_unlogged_exit(log, _BANK_OF[len(report.pcrs[register])], replayed[register])
    if explained is None or not hmac.compare_digest(explained, report.pcrs[register]):
        return differing
    rules.caution(
        "log.unlogged_exit",
        False,
        f"every extend of PCR {register} in the log",
        "two are not, which are those at the end of the boot services: this firmware doesn't log them",
        "accept it by name for firmware that is known for it",
    )
    return [index for index in differing if index != register]


_HINTS = {
    INITDATA_PCR: "no initdata document is expected but one was measured: give its digest",
    **dict.fromkeys(range(16, 24), "this PCR has its start value unless a dynamic launch or a debugger used it"),
}


def _initdata(report: wire.Report, bank: str, digest: bytes | None, rules: Rules) -> None:
    """Guests extend the digest into the SHA-256 bank, so no other bank can show it."""
    if digest is None or len(report.pcrs) <= INITDATA_PCR:
        return
    if bank not in ("sha256", ""):
        rules.check("initdata", False, "PCR 8 of the SHA-256 bank", f"the bank {bank}", "quote the SHA-256 bank")
        return
    if len(digest) != 32:
        raise Unusable("an initdata digest for a TPM has 32 bytes (SHA-256)")
    expected = hashlib.sha256(bytes(32) + digest).digest()
    rules.check(
        "initdata",
        hmac.compare_digest(expected, report.pcrs[INITDATA_PCR]),
        f"PCR 8 = {expected.hex()}",
        f"PCR 8 = {report.pcrs[INITDATA_PCR].hex()}",
        "the guest started with another initdata document, or with none",
    )


def signed(report: wire.Report) -> bool:
    """Whether `ak_public` signed the message, with a scheme and strength that are accepted."""
    try:
        signature = wire.parse_signature(report.signature)
        key = _key(report.ak_public)
        chosen = _HASHERS[signature.hash]
        if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(signature.value, tuple):
            if key.curve.name not in ("secp256r1", "secp384r1"):
                return False
            key.verify(encode_dss_signature(*signature.value), report.message, ec.ECDSA(chosen))
        elif isinstance(key, rsa.RSAPublicKey) and isinstance(signature.value, bytes):
            if key.key_size < 2048:
                return False
            pss = padding.PSS(padding.MGF1(chosen), padding.PSS.AUTO)
            chosen_padding = padding.PKCS1v15() if signature.scheme == wire.ALG_RSASSA else pss
            key.verify(signature.value, report.message, chosen_padding, chosen)
        else:
            return False
    except (Malformed, InvalidSignature, UnsupportedAlgorithm, ValueError, KeyError, TypeError):
        return False
    return True


@lru_cache(maxsize=256)
def _key(public: bytes) -> object:
    """The key, remembered: an AK that comes again has the same bytes."""
    return load_der_public_key(public)


def _values(
    pcrs: list[str], report: wire.Report, attest: wire.Attest, log: EventLog, voucher: _Voucher
) -> dict[str, Any]:
    """Claims in CoCo's names, and what the quote says beside them."""
    bank = attest.selections[0][0]
    return {
        **dict(zip(_COCO_NAMES, pcrs, strict=True)),
        "ak_public": b64(report.ak_public),
        "report_data": attest.extra_data.hex(),
        "init_data": pcrs[INITDATA_PCR],
        "firmware_version": f"{attest.firmware_version:016x}",
        "clock": attest.clock,
        "reset_count": attest.reset_count,
        "restart_count": attest.restart_count,
        "ak_revocation": voucher.revocation,
        "bank": bank,
        "log": logfacts.facts(log, bank),
    }


def _shown(attest: wire.Attest) -> str:
    return ", ".join(f"{name}:{_ranges(pcrs)}" for name, pcrs in attest.selections) or "none"


def _ranges(indexes: tuple[int, ...]) -> str:
    """`0-7,9` for (0..7, 9)."""
    parts: list[list[int]] = []
    for index in indexes:
        if parts and parts[-1][1] == index - 1:
            parts[-1][1] = index
        else:
            parts.append([index, index])
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in parts)
