"""Judge what an Azure paravisor says on top of a hardware report, and compose the claims of both.

Rules (each under the TEE's name), beside all the rules of the hardware's own room
  runtime_data.format     JSON with the vTPM's attestation key
  runtime_data.binding    the hardware report's report data are the hash of the runtime data, zeros behind it
  runtime_data.user_data  evidence version 2: the runtime data hold the report data that were asked for
  quote.signature         the key in the runtime data signed the quote (RSASSA, SHA-256, from 2048 bits)
  quote.format            TPMS_ATTEST of type quote with the TPM's magic, whole
  quote.nonce             extraData is the report data that were asked for, all of them
  quote.selection, .pcrs  all 24 PCRs of the SHA-256 bank; the PCRs shown are the PCRs quoted
  initdata                PCR 8 is exactly one extend by the initdata digest (SHA-256)
  initdata.document       a document that came along has that digest

The chain of trust: the CPU signs what the paravisor says; the paravisor says which key is its TPM's; that key signs the
PCRs. So PCRs are worth what the measurement of the paravisor is worth: whoever starts a VM of his own on such a CPU can
put a key of his own into runtime data. A relying party pins the hardware measurement before it believes a PCR.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from casemate.errors import Malformed, Refused, Unusable
from casemate.schema.claims import Claims
from casemate.schema.endorsements import Endorsements
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request
from casemate.tee.hcl.report import HclReport, RuntimeData, Sent, parse_runtime_data
from casemate.tee.rules import Rules
from casemate.tee.tpm import report as tpm

Judge = Callable[[Evidence, Endorsements, Request, datetime], Claims]
INITDATA_PCR = 8
_ALL = tuple(range(tpm.PCR_COUNT))
_LEAST_BITS, _MOST_BITS = 2048, 4096


@dataclass
class Found:
    """What was found, filled as far as it got. `missing` is why nobody can judge the hardware."""

    sent: Sent
    report: HclReport
    rules: Rules
    hardware: Claims | None = None
    missing: Unusable | None = None
    runtime_data: RuntimeData | None = None
    attest: tpm.Attest | None = None


def ask(found: Found, judge: Judge, evidence: Evidence, endorsements: Endorsements, now: datetime) -> None:
    """Have the hardware's room judge its report; its findings become part of ours."""
    try:
        found.hardware = judge(evidence, endorsements, Request(), now)
        found.rules.add(list(found.hardware.checks))
    except Refused as refused:
        found.rules.add(list(refused.findings))
    except Unusable as missing:
        found.missing = missing


def judge(found: Found, report_data: bytes, evidence: Evidence, request: Request) -> None:
    """Apply the rules above. `report_data` is the register of the hardware report."""
    _runtime_data(found, report_data, request)
    _quote(found, request)
    _initdata(found, evidence, request)


def settle(found: Found) -> Claims:
    """The hardware's claims when nothing was refused; `Unusable` when only endorsements of the hardware are missing."""
    if found.rules.failed:
        raise found.rules.refusal()
    if found.missing is not None:
        raise found.missing
    if found.hardware is None or found.attest is None or found.runtime_data is None:
        raise found.rules.refusal()
    return found.hardware


def compose(
    tee: str,
    found: Found,
    request: Request,
    *,
    values: dict[str, Any],
    registers: dict[str, str],
    rests_on: tuple[str, ...],
) -> Claims:
    """Claims of both layers: `registers` and `values` are the hardware's, with the PCRs beside them."""
    hardware = settle(found)
    attest = found.attest
    if attest is None:
        raise found.rules.refusal()
    pcrs = [value.hex() for value in found.sent.pcrs]
    return Claims(
        tee=tee,
        platform_class=hardware.platform_class,
        memory_encrypted=hardware.memory_encrypted,
        debug=hardware.debug,
        measurement=registers | {f"pcr{i}": value for i, value in enumerate(pcrs)},
        report_data=attest.extra_data.hex(),
        init_data=pcrs[INITDATA_PCR],
        fresh=request.report_data is not None,
        vouched_by=hardware.vouched_by,
        values=values | _values(found, attest, pcrs),
        checks=tuple(found.rules.checks),
        cautions=hardware.cautions,
        tcb_status=hardware.tcb_status,
        valid_until=hardware.valid_until,
        privilege_level=hardware.privilege_level,
        rests_on=rests_on,
    )


def _runtime_data(found: Found, report_data: bytes, request: Request) -> None:
    report, rules = found.report, found.rules
    digest = hashlib.new(report.hash, report.runtime_data).digest()
    rules.register("runtime_data.binding", digest, report_data,
                   "the runtime data were changed, or are another boot's", size=len(digest))  # fmt: skip
    try:
        found.runtime_data = parse_runtime_data(report.runtime_data)
    except Malformed as error:
        rules.check("runtime_data.format", False, "the paravisor's JSON with its TPM's key", error)
        return
    size = found.runtime_data.ak_modulus.bit_length()
    rules.check("runtime_data.format", True, "the paravisor's JSON with its TPM's key", f"an RSA key of {size} bits")
    if request.report_data is not None and found.sent.version >= 2:
        hint = "the hardware report was made for another request: ask for it again"
        rules.register("runtime_data.user_data", request.report_data, found.runtime_data.user_data, hint)


def _quote(found: Found, request: Request) -> None:
    sent, rules = found.sent, found.rules
    ok = found.runtime_data is not None and signed(found.runtime_data, sent)
    shown = "signed" if ok else "not signed"
    rules.check("quote.signature", ok, "the quote signed by the key in the runtime data", shown,
                "the quote was changed, or is another TPM's")  # fmt: skip
    try:
        found.attest = attest = tpm.parse_attest(sent.message)
    except Malformed as error:
        rules.check("quote.format", False, "a TPMS_ATTEST of type quote", error, "ask the TPM for a quote")
        return
    firmware = f"a quote of TPM firmware {attest.firmware_version:016x}"
    rules.check("quote.format", True, "a TPMS_ATTEST of type quote", firmware)
    if request.report_data is not None:
        same = bool(request.report_data) and hmac.compare_digest(request.report_data, attest.extra_data)
        wanted, shown = (data.hex() or "nothing" for data in (request.report_data, attest.extra_data))
        rules.check("quote.nonce", same, wanted, shown,
                    "the evidence was made for another request: ask for it again")  # fmt: skip
    whole = attest.selections == (("sha256", _ALL),) and len(sent.pcrs) == tpm.PCR_COUNT
    shown = (
        f"{len(sent.pcrs)} PCRs, {', '.join(f'{len(p)} of {bank}' for bank, p in attest.selections) or 'none'} quoted"
    )
    rules.check("quote.selection", whole, "all 24 PCRs of the SHA-256 bank", shown, "quote all PCRs of that bank")
    computed = hashlib.sha256(b"".join(sent.pcrs)).digest()
    rules.equal("quote.pcrs", attest.pcr_digest, computed, "the PCRs do not belong to this quote")


def signed(data: RuntimeData, sent: Sent) -> bool:
    """Whether the attestation key signed the quote; Azure's vTPM signs with RSASSA and SHA-256."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding, rsa

    if not _LEAST_BITS <= data.ak_modulus.bit_length() <= _MOST_BITS:
        return False
    try:
        key = rsa.RSAPublicNumbers(data.ak_exponent, data.ak_modulus).public_key()
        key.verify(sent.signature, sent.message, padding.PKCS1v15(), hashes.SHA256())
    except (InvalidSignature, ValueError):
        return False
    return True


def _initdata(found: Found, evidence: Evidence, request: Request) -> None:
    rules, digest = found.rules, request.initdata_digest
    if evidence.initdata is not None:
        document = hashlib.sha256(evidence.initdata).digest()
        if digest is not None:
            rules.equal("initdata.document", digest, document, "the document that came along is not the expected one")
        digest = document if digest is None else digest
    if digest is None:
        return
    if len(digest) != 32:
        # Another hash cannot be extended into this bank; a peer's verifier breaks down here.
        rules.check("initdata", False, "a SHA-256 digest, 32 bytes", f"{len(digest)} bytes were asked for",
                    "make the initdata document with algorithm sha256")  # fmt: skip
        return
    shown = found.sent.pcrs[INITDATA_PCR] if len(found.sent.pcrs) > INITDATA_PCR else b""
    expected = hashlib.sha256(bytes(32) + digest).digest()
    rules.equal("initdata", expected, shown, "PCR 8: the guest started with another initdata document, or with none")


def _values(found: Found, attest: tpm.Attest, pcrs: list[str]) -> dict[str, Any]:
    """CoCo's members of both rooms (`tpm`, `init_data`, `report_data`), and what the paravisor says beside them."""
    data = found.runtime_data
    return {
        "tpm": {f"pcr{i:02}": value for i, value in enumerate(pcrs)},
        "init_data": pcrs[INITDATA_PCR],
        "report_data": attest.extra_data.hex(),
        "hcl": {
            "evidence_version": found.sent.version,
            "version": found.report.version,
            "runtime_data_hash": found.report.hash,
            "runtime_data": hashlib.new(found.report.hash, found.report.runtime_data).hexdigest(),
            "user_data": data.user_data.hex() if data else "",
            "vm_configuration": data.configuration if data else {},
            "tpm_firmware": f"{attest.firmware_version:016x}",
            "tpm_clock": attest.clock,
            "tpm_clock_safe": attest.safe,
            "tpm_resets": attest.reset_count,
            "tpm_restarts": attest.restart_count,
        },
    }
