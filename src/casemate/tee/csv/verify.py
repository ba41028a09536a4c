"""Judge a Hygon CSV report: chain, signature, HMAC, policy, bindings. Every failed rule is reported.

Rules (checks)
  csv.certificates.hsk_cek   HSK and CEK are there (only absent, and nothing else wrong: `Unusable`)
  csv.root                   a root that came along is one that is trusted, and signed itself
  csv.chain.hsk, .cek, .pek  each is of its kind and signed by the one before it (SM2 with SM3), from the pinned HRK on
  csv.signature              the PEK signed the report
  csv.mac                    HMAC-SM3 over PEK and serial number, where the report still carries what it covers
  csv.pek                    a PEK beside the report is the one in it
  csv.report.signer          the report says that a PEK signed it with SM2
  csv.rtmr                   register 0 is the launch digest (version 2)
  csv.log.format, .rtmr1..4, .registers  an event log that comes along replays to the registers (version 2)
  csv.report_data            the report data that was asked for, zeros behind it
  csv.initdata               no initdata was asked for: CSV has no register that the launch could bind it to
Rules (cautions)
  csv.policy.debug           the host may not debug the guest (NODBG)
  csv.policy.key_sharing     the guest's key is not shared with other guests (NOKS)
  csv.policy.registers       the guest's registers are encrypted (ES)
  csv.policy.migration       the guest may not be sent to another machine (NOSEND)
"""

from __future__ import annotations

import hmac
from datetime import datetime
from typing import TYPE_CHECKING

from casemate.crypto import sm2, sm3
from casemate.errors import Malformed, Unusable
from casemate.schema.claims import Claims
from casemate.schema.endorsements import PRODUCTION, Endorsements
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request
from casemate.tee.csv import log, roots
from casemate.tee.csv import report as wire
from casemate.tee.csv.claims import policy, values
from casemate.tee.csv.wire import Parts, parse_evidence, split
from casemate.tee.rules import Rules

if TYPE_CHECKING:
    from casemate.tee.csv.roots import Root

NAME = "csv"
HSK_CEK, HRK = "hsk_cek", "hrk"
_HINT = "fetch them by the chip's serial number: casemate collateral fetch"


def verify(evidence: Evidence, endorsements: Endorsements, request: Request, now: datetime) -> Claims:
    """Claims of a genuine report, or `Refused` with every failed rule; `Unusable` when only HSK and CEK are missing.

    `endorsements.collateral` may hold `hsk_cek` (HSK, then CEK, 2916 bytes) and `hrk` (832 bytes). Neither report nor
    certificates carry a time, so `now` is not looked at.
    """
    if evidence.tee != NAME:
        raise Unusable(f"evidence of {evidence.tee[:32]!r} was given to the CSV room")
    del now
    parts = parse_evidence(evidence.primary)
    rules = Rules(NAME)
    root = _chain(parts, endorsements, rules)
    _judge(parts.report, rules)
    events = None
    if parts.event_log is not None and parts.report.version >= 2:
        events = log.judge(parts.event_log, parts.report.rtmrs, rules)
    if request.report_data is not None:
        rules.register("report_data", request.report_data, parts.report.report_data,
                       "the guest answered another question")  # fmt: skip
    if request.initdata_digest is not None:
        rules.check("initdata", False, "no initdata", "one was asked for", "CSV binds none: measure it with the guest")
    rules.settle("certificates.")
    if root is None:
        raise rules.refusal()
    report = parts.report
    registers = {f"rtmr{i}": value.hex() for i, value in enumerate(report.rtmrs)}
    return Claims(
        tee=NAME,
        platform_class=root.platform_class,
        memory_encrypted=root.platform_class == PRODUCTION,
        debug=not policy(report.policy)["nodbg"],
        measurement={"measure": report.measure.hex()} | registers,
        report_data=report.report_data.hex(),
        init_data="",
        fresh=request.report_data is not None,
        vouched_by=root.name,
        values=values(parts, events),
        checks=tuple(rules.checks),
        cautions=tuple(rules.cautions),
    )


def _chain(parts: Parts, endorsements: Endorsements, rules: Rules) -> Root | None:
    """The root that the PEK reaches; every link is judged, also behind a broken one."""
    given = endorsements.collateral
    hsk, cek = parts.hsk, parts.cek
    if (hsk is None or cek is None) and HSK_CEK in given:
        hsk, cek = split(given[HSK_CEK])
    trusted = roots.trusted(endorsements)
    if HRK in given:
        _root(wire.authority(given[HRK]), trusted, rules)
    pek = parts.report.pek or parts.pek
    if parts.pek is not None and parts.report.pek is not None:
        same = hmac.compare_digest(parts.pek.raw, parts.report.pek.raw)
        rules.check("pek", same, "the PEK in the report", "it" if same else "another", "the evidence was put together")
    if pek is None:
        raise Malformed("csv evidence: no PEK, neither in the report nor beside it")
    _report(parts.report, pek, rules)
    found = "both" if hsk and cek else "neither" if not hsk and not cek else "one alone"
    if not rules.check("certificates.hsk_cek", bool(hsk and cek), "HSK and CEK", found, _HINT) or not hsk or not cek:
        return None
    root = next((r for r in trusted if r.key_id == hsk.signer_id and _signed(r.key, r.identity, hsk, None)), None)
    right = root is not None and hsk.usage == wire.HSK
    found = f"an {_kind(hsk)} of {root.name}" if root else f"an {_kind(hsk)} of a root that is not trusted"
    rules.check("chain.hsk", right, "an HSK signed by a trusted HRK", found, "this is not a Hygon production platform")
    bound = cek.signer_id == hsk.key_id and _signed(hsk.key, hsk.identity, cek, wire.HSK)
    _link("chain.cek", cek, wire.CEK, bound, rules)
    _link("chain.pek", pek, wire.PEK, _signed(cek.key, cek.identity, pek, wire.CEK), rules)
    return root


def _root(given: wire.Certificate, trusted: tuple[Root, ...], rules: Rules) -> None:
    known = any(r.key == given.key and r.key_id == given.key_id and r.identity == given.identity for r in trusted)
    own = given.usage == wire.HRK and given.signer_id == given.key_id
    ok = known and own and _signed(given.key, given.identity, given, None)
    rules.check("root", ok, "a trusted root that signed itself", "one" if ok else "another, or a changed one")


def _link(rule: str, certificate: wire.Certificate, usage: int, signed: bool, rules: Rules) -> None:
    above = wire.NAMES[wire.HSK if usage == wire.CEK else wire.CEK]
    found = f"a {_kind(certificate)} {'signed' if signed else 'not signed'} by it"
    ok = signed and certificate.usage == usage
    rules.check(rule, ok, f"a {wire.NAMES[usage]} signed by the {above}", found, "the certificates are another chip's")


def _report(report: wire.Report, pek: wire.Certificate, rules: Rules) -> None:
    ok = sm2.verify(pek.key, pek.identity, report.signed, report.signature.r, report.signature.s)
    found = "signed" if ok else "no such signature"
    rules.check("signature", ok, "SM2 by the PEK", found, "the report was changed, or is another machine's")
    ok = report.sig_usage == wire.PEK and report.sig_algo == wire.SM2_SIGN
    rules.check("report.signer", ok, "a PEK, SM2", f"usage {report.sig_usage:#x}, algorithm {report.sig_algo}")
    if report.mac:
        rules.equal("mac", sm3.mac(report.mnonce, report.covered), report.mac, "the report was changed on its way")


def _signed(key: sm2.PublicKey, identity: bytes, certificate: wire.Certificate, usage: int | None) -> bool:
    """Whether one of the certificate's signatures, by a signer of `usage`, is the key's."""
    return any(
        signature.usage == usage and sm2.verify(key, identity, certificate.signed, signature.r, signature.s)
        for signature in certificate.signatures
    )


def _kind(certificate: wire.Certificate) -> str:
    return wire.NAMES.get(certificate.usage, f"key of usage {certificate.usage:#x}")


def _judge(report: wire.Report, rules: Rules) -> None:
    if report.version >= 2:
        rules.equal("rtmr", report.measure, report.rtmrs[0], "the registers are another guest's")
    bits = policy(report.policy)
    found = f"policy {report.policy:#010x}"
    for rule, bit, wanted, hint in (
        ("debug", "nodbg", "no debugging", "launch with the policy bit NODBG"),
        ("key_sharing", "noks", "a key of its own", "launch with the policy bit NOKS"),
        ("registers", "es", "encrypted registers", "launch as CSV2 or CSV3, with the policy bit ES"),
        ("migration", "nosend", "no sending to other machines", "launch with the policy bit NOSEND"),
    ):
        rules.caution(f"policy.{rule}", bool(bits[bit]), wanted, found, hint)
