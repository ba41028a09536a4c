"""Judge NVIDIA devices: chain, firmware id, signature, nonce, and measurements against signed manifests.

Rules (checks), for each device of the list
  nvidia.device.*       the certificate reaches NVIDIA's pinned root, valid at `now`; not on a list that was given
  nvidia.identity       the device's certificate names a chip of the architecture that the evidence states, and a FWID
  nvidia.fwid           the report's FWID, where it has one, is the certificate's
  nvidia.signature      ECDSA P-384 over request and response, by the device's key
  nvidia.nonce          the request's nonce: the first 32 bytes of the report data (all of it when it has 32)
  nvidia.unique         no device stands in the list twice
  nvidia.rim.*          each manifest for this device: form, signature, chain to NVIDIA's pinned root for manifests
  nvidia.measurements   every active value of the manifests is what the report shows
  nvidia.ocsp.*         responses that were given (ocsp.py); nvidia.revocation tells how far they and lists reach
  nvidia.initdata       no initdata was asked for: a device has no register for it
Rules (cautions)
  nvidia.rim            a manifest for the driver and one for the firmware are there (a switch has firmware alone)
  nvidia.protected_pcie not in Protected PCIe mode, where links between GPUs are plain and switches must be trusted
  nvidia.debug          the device's certificate does not say that debugging is on
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType

from casemate.crypto import chain, ecdsa
from casemate.errors import Finding, Malformed, Refused, Unusable
from casemate.schema.claims import Claims
from casemate.schema.endorsements import PRODUCTION, Endorsements
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request
from casemate.tee.nvidia import claims as shared
from casemate.tee.nvidia import identity, manifests, ocsp
from casemate.tee.nvidia import report as wire
from casemate.tee.roots import Root, trusted
from casemate.tee.rules import Rules

NAME = "nvidia"
# SHA-256 of the root's key (DER SubjectPublicKeyInfo). The certificate's SHA-256 is 102bf659...690b167b48.
PINS: Mapping[str, str] = MappingProxyType(
    {"NVIDIA Device Identity CA": "a90c4eb5acfd3e3d03a25db6a26b84f720ad0503196c627c21ddd48dd85b06a4"}
)
OCSP = "ocsp/"
_REPORT_DATA = (wire.NONCE_SIZE, 48)


class _Judged:
    """What came of one device: its facts for the claims."""

    def __init__(self, device: wire.Device, report: wire.Report) -> None:
        self.device = device
        self.report = report
        self.identity: identity.Identity | None = None
        self.rom = b""
        self.roots: list[Root] = []
        self.ends: list[datetime] = []
        self.revocation = ""
        self.vouched: dict[str, str] = {}


def verify(evidence: Evidence, endorsements: Endorsements, request: Request, now: datetime) -> Claims:
    """Claims of genuine devices, or `Refused` with every failed rule; `Unusable` without the extra for manifests.

    `endorsements.collateral` may hold manifests (names that start with ``rim/``), OCSP responses (``ocsp/``) and
    revocation lists (``crl/``), DER.
    """
    if evidence.tee != NAME:
        raise Unusable(f"evidence of {evidence.tee[:32]!r} was given to the NVIDIA room")
    if wire.is_statement(evidence.primary):
        raise _hearsay()
    devices = wire.parse_evidence(evidence.primary)
    reports = [wire.parse(device.report) for device in devices]
    rims = manifests.load(endorsements)
    rules, judged = Rules(NAME), []
    for number, (device, report) in enumerate(zip(devices, reports, strict=True)):
        own = Rules(NAME)
        judged.append(_device(device, report, rims, endorsements, now=now, rules=own))
        _nonce(report, request, own)
        prefix = f"device {number}: " if len(devices) > 1 else ""
        rules.add([_told(finding, prefix) for finding in own.checks])
        rules.cautions += [_told(finding, prefix) for finding in own.cautions]
    _together(judged, request, rules)
    roots = [root for one in judged for root in one.roots]
    if rules.failed or not roots or any(one.identity is None for one in judged):
        raise rules.refusal()
    return _claims(judged, roots, request, rules)


def _device(
    device: wire.Device,
    report: wire.Report,
    rims: manifests.Rims,
    endorsements: Endorsements,
    *,
    now: datetime,
    rules: Rules,
) -> _Judged:
    found = _Judged(device, report)
    path = _chain(device, endorsements, now, found, rules)
    key = path.links[0].cert.public_key() if path is not None and path.links else None
    signed = ecdsa.verify_p384(key, report.signature, report.signed)
    rules.check("signature", signed, "the report signed by the device's key", "signed" if signed else "not signed",
                "the report was changed, or the certificates are another device's")  # fmt: skip
    if path is None:
        return found
    found.rom = path.links[1].key_digest if len(path.links) > 1 else b""
    found.identity = _identity(path, device, report, rules)
    paths = [path]
    if found.identity is not None:
        vouched = rims.judge(
            report, found.identity.chip, endorsements, switch=device.arch == wire.SWITCH, now=now, rules=rules
        )
        found.vouched = vouched.names
        found.roots += vouched.roots
        found.ends += [p.not_after for p in vouched.paths if p.not_after]
        paths += vouched.paths
    _revocation(paths, endorsements, found, now=now, rules=rules)
    ppcie = report.protected_pcie
    rules.caution("protected_pcie", not ppcie, "links between GPUs are encrypted, or there are none",
                  "Protected PCIe mode" if ppcie else "not in Protected PCIe mode",
                  "attest the switches too, and accept this mode by name")  # fmt: skip
    return found


def _chain(device: wire.Device, endorsements: Endorsements, now: datetime, found: _Judged,
           rules: Rules) -> chain.Path | None:  # fmt: skip
    sent = device.certificates
    crls = manifests.revocation_lists(endorsements)
    roots = trusted(NAME, PINS, sent, endorsements)
    try:
        path = chain.walk(sent[: chain.MAX_LENGTH], [r.certificate for r in roots], now, rule="nvidia.device",
                          leaf_usages=None, crls=crls)  # fmt: skip
    except Malformed as error:
        rules.check("device.chain", False, "X.509 certificates", error, "the certificates were changed")
        return None
    rules.add(path.findings)
    if path.root is not None:
        found.roots.append(roots[path.root])
        if not path.findings:
            rules.check("device.chain", True, "a path to a trusted root", roots[path.root].name)
    if path.not_after:
        found.ends.append(path.not_after)
    return path


def _identity(path: chain.Path, device: wire.Device, report: wire.Report, rules: Rules) -> identity.Identity | None:
    """The chip and firmware that the device's certificate names."""
    wanted = f"a certificate of a {device.arch} device with a FWID"
    try:
        found = identity.read(path.links[0])
    except (Malformed, IndexError) as error:
        rules.check("identity", False, wanted, error, "the chain must begin with the device's own certificate")
        return None
    fits = found.chip.startswith(wire.ARCHITECTURES[device.arch])
    rules.check("identity", fits, wanted, found.name, "`arch` must be the architecture of the device")
    if wire.FWID in report.opaque:  # firmware before 2024 does not repeat it: then the certificate alone names it
        rules.equal("fwid", found.fwid, report.opaque[wire.FWID], "the report is of other firmware than its key")
    rules.caution("debug", not found.debug, "no debugging", "debugging is on" if found.debug else "off")
    return found


def _nonce(report: wire.Report, request: Request, rules: Rules) -> None:
    asked = request.report_data
    if asked is None:
        return
    hint = "the device answered another question"
    if len(asked) not in _REPORT_DATA:
        rules.check("nonce", False, "32 or 48 bytes of report data", f"{len(asked)} bytes were asked for", hint)
        return
    rules.equal("nonce", asked[: wire.NONCE_SIZE], report.nonce, hint)


def _revocation(paths: Sequence[chain.Path], endorsements: Endorsements, found: _Judged, *, now: datetime,
                rules: Rules) -> None:  # fmt: skip
    """Absent responses are told and do not refuse: NVIDIA's devices and manifests also expire, and are replaced."""
    given = [data for name, data in endorsements.collateral.items() if name.startswith(OCSP)]
    outcome = ocsp.judge(given, [p.links for p in paths], now, rules)
    # A device's own certificate is made by its ROM, and no authority speaks of it.
    wanted = {c.der for i, p in enumerate(paths) for c in p.links[0 if i else 1 : -1]}
    if not given:
        told = "no OCSP responses were given"
    else:
        told = f"OCSP: {len(outcome.good & wanted)} of {len(wanted)} certificates good"
        told += f", responses not current for {len(outcome.stale)}" if outcome.stale else ""
    lists = [p.revocation for p in paths] if manifests.revocation_lists(endorsements) else []
    found.revocation = told + (f"; lists: {', '.join(lists)}" if lists else "; no lists were given")
    rules.check("revocation", True, "no certificate known to be revoked", found.revocation)
    if outcome.ends:
        found.ends.append(outcome.ends)


def _together(judged: Sequence[_Judged], request: Request, rules: Rules) -> None:
    roms = [one.rom for one in judged if one.rom]  # the key of the ROM is the device; its firmware's keys may be many
    doubled = len(roms) - len(set(roms))
    rules.check("unique", not doubled, "each device once", f"{doubled} more than once" if doubled else "each once",
                "one device must not stand for several")  # fmt: skip
    nonces = {one.report.nonce for one in judged}
    if request.report_data is None and len(nonces) > 1:
        rules.check("nonce", False, "one nonce for all devices", f"{len(nonces)} nonces", "collect them anew, at once")
    if request.initdata_digest is not None:
        rules.check("initdata", False, "no initdata", "one was asked for", "bind it to the CPU's evidence")


def _claims(judged: Sequence[_Judged], roots: Sequence[Root], request: Request, rules: Rules) -> Claims:
    worst = next((root for root in roots if root.platform_class != PRODUCTION), roots[0])
    devices = [
        shared.values(one.device, one.report, one.identity, one.revocation, one.vouched)
        for one in judged
        if one.identity is not None
    ]
    ends = [end for one in judged for end in one.ends]
    alone = devices[0] if len(devices) == 1 else {}
    return Claims(
        tee=NAME,
        platform_class=worst.platform_class,
        memory_encrypted=worst.platform_class == PRODUCTION,
        debug=any(one.identity is not None and one.identity.debug for one in judged),
        measurement=_registers(judged),
        report_data=judged[0].report.nonce.hex(),
        init_data="",
        fresh=request.report_data is not None,
        vouched_by=worst.name,
        values={**alone, "devices": devices},
        checks=tuple(rules.checks),
        cautions=tuple(rules.cautions),
        valid_until=min(ends) if ends else None,
    )


def _registers(judged: Sequence[_Judged]) -> dict[str, str]:
    """``gpu0.1`` is SPDM measurement 1 of the first GPU, ``switch0.1`` that of the first switch."""
    found: dict[str, str] = {}
    counts = {"gpu": 0, "switch": 0}
    for one in judged:
        kind = "switch" if one.device.arch == wire.SWITCH else "gpu"
        for index, value in sorted(one.report.measurements.items()):
            found[f"{kind}{counts[kind]}.{index}"] = value.hex()
        counts[kind] += 1
    return found


def _hearsay() -> Refused:
    """A verifier's result has nothing of the device's in it; those made on the device's own machine are unsigned."""
    return Refused.because(
        "nvidia.signature",
        expected="a report signed by the device",
        found="what a verifier said about it (a detached EAT)",
        hint="ask for the device's report and certificates, and judge them here",
    )


def _told(finding: Finding, prefix: str) -> Finding:
    return Finding(finding.rule, finding.expected, prefix + finding.found, finding.hint, finding.ok)
