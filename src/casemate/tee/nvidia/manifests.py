"""Which manifests vouch for a device, and whether the device shows what they say.

A manifest is taken up when its product is the device's chip, and its version that of the driver or of the firmware.
Then it must hold: its signer reaches NVIDIA's root for manifests, and only what is signed is read. Boards with the same
firmware version have manifests of their own: where several hold, one must fit as a whole.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import product
from types import MappingProxyType

from casemate.crypto import chain
from casemate.errors import Malformed
from casemate.schema.endorsements import Endorsements
from casemate.tee.nvidia import report as wire
from casemate.tee.nvidia import rim
from casemate.tee.roots import Root, trusted
from casemate.tee.rules import Rules

RIM, CRL = "rim/", "crl/"
MAX_RIMS = 64
MAX_LISTS = 32
# Anchors for manifests name this, so that no anchor for devices vouches for manifests, or the other way round.
ANCHORED = "nvidia-rim"
# SHA-256 of the root's key (DER SubjectPublicKeyInfo). The certificate's SHA-256 is 12977b51...1df5d1.
PINS: Mapping[str, str] = MappingProxyType(
    {"NVIDIA CoRIM signing Root CA": "dec1dc316477aa851eebdf51327ae9f864bc8d89254657ed1e7eb9168af1e1a3"}
)
_NVDEC0_INDEX = 35  # says nothing while that decoder is off
_HINT = "fetch NVIDIA's manifests: casemate collateral fetch"


@dataclass
class Vouched:
    """What the manifests gave: the names of those that hold, the roots and paths of their signers."""

    names: dict[str, str] = field(default_factory=dict)
    roots: list[Root] = field(default_factory=list)
    paths: list[chain.Path] = field(default_factory=list)


@dataclass(frozen=True)
class Rims:
    """The manifests that were given, not believed; `broken` says what could not be read."""

    given: tuple[rim.Unverified, ...]
    broken: tuple[str, ...]

    def judge(
        self, report: wire.Report, chip: str, endorsements: Endorsements, *, switch: bool, now: datetime, rules: Rules
    ) -> Vouched:
        """Apply every rule about manifests to one device."""
        for fault in self.broken:
            rules.check("rim.format", False, "a SWID tag with one signature", fault, "fetch the manifest again")
        wanted = {"firmware": report.vbios} if switch else {"driver": report.driver, "firmware": report.vbios}
        products = {chip} | ({report.word(wire.CHIP_INFO)} - {""})
        vouched = Vouched()
        found: list[list[rim.Manifest]] = []
        absent = []
        for kind, version in wanted.items():
            fitting = [u for u in self.given if _fits(u.claimed, version, products)]
            held = [m for u in fitting if (m := _held(u, endorsements, now, vouched, rules)) is not None]
            held = [m for m in held if _fits(m, version, products)]
            if not held:
                absent.append(f"none{' that holds' if fitting else ''} for {kind} {version or '(unnamed)'}")
            else:
                found.append(held)
                vouched.names[kind] = version
        shown = ", ".join(f"{kind} {version or '(unnamed)'}" for kind, version in wanted.items())
        rules.caution("rim", not absent, f"signed manifests: {shown}", "; ".join(absent) or "all there", _HINT)
        if found:
            _measured(found, report, rules)
        return vouched


def load(endorsements: Endorsements) -> Rims:
    """The manifests of the collateral; `Unusable` when there are any and the extra is not installed."""
    given, broken = [], []
    names = sorted(name for name in endorsements.collateral if name.startswith(RIM))
    for name in names[:MAX_RIMS]:
        try:
            given.append(rim.parse(endorsements.collateral[name]))
        except Malformed as error:
            broken.append(f"{name[:64]}: {error}")
    if len(names) > MAX_RIMS:
        broken.append(f"{len(names)} manifests, at most {MAX_RIMS} are read")
    return Rims(tuple(given), tuple(broken))


def revocation_lists(endorsements: Endorsements) -> list[bytes]:
    """The lists that were given (DER); each counts for the issuer that signed it."""
    return [data for name, data in sorted(endorsements.collateral.items()) if name.startswith(CRL)][:MAX_LISTS]


def _fits(manifest: rim.Manifest, version: str, products: set[str]) -> bool:
    return bool(version) and manifest.version.upper() == version.upper() and manifest.product in products


def _held(rim_: rim.Unverified, endorsements: Endorsements, now: datetime, vouched: Vouched,
          rules: Rules) -> rim.Manifest | None:  # fmt: skip
    """The manifest when its signature and its signer's chain hold."""
    name = f"{rim_.claimed.product} {rim_.claimed.version}"
    roots = trusted(ANCHORED, PINS, rim_.certificates, endorsements)
    crls = revocation_lists(endorsements)
    try:
        path = chain.walk(rim_.certificates[: chain.MAX_LENGTH], [r.certificate for r in roots], now,
                          rule="nvidia.rim", leaf_usages=None, crls=crls)  # fmt: skip
        signer = chain.load(rim_.certificates[0])
    except Malformed as error:
        rules.check("rim.chain", False, "X.509 certificates", error, _HINT)
        return None
    rules.add(path.findings)
    if path.root is not None and not path.findings:
        rules.check("rim.chain", True, "a path to a trusted root", f"{name}: {roots[path.root].name}")
    try:
        manifest = rim.verify(rim_, signer)
    except Malformed as error:
        rules.check("rim.signature", False, f"{name}, signed as a whole", error, _HINT)
        return None
    rules.check("rim.signature", True, f"{name}, signed as a whole", "signed")
    if path.root is None or path.findings:
        return None
    vouched.roots.append(roots[path.root])
    vouched.paths.append(path)
    return manifest


def _measured(found: Sequence[Sequence[rim.Manifest]], report: wire.Report, rules: Rules) -> None:
    """One manifest of each kind must fit; when none does, the first ones' differences are told."""
    first: tuple[int, str] | None = None
    for chosen in product(*found):
        golden, twice = _merged(chosen)
        differing = _differing(golden, report)
        fault = f"both manifests speak of {twice}" if twice else f"others at {differing}" if differing else ""
        first = first or (len(golden), fault)
        if not fault:
            first = (len(golden), "")
            break
    count, fault = first or (0, "")
    ok = count > 0 and not fault
    rules.check("measurements", ok, f"{count} measurements as the manifests say (indexes from 0)",
                fault or ("all equal" if count else "the manifests are empty"),
                "the device runs other firmware or another driver than NVIDIA signed")  # fmt: skip


def _merged(chosen: Sequence[rim.Manifest]) -> tuple[dict[int, tuple[bytes, ...]], list[int]]:
    golden: dict[int, tuple[bytes, ...]] = {}
    twice = []
    for manifest in chosen:
        twice += [index for index in manifest.golden if index in golden]
        golden.update(manifest.golden)
    return golden, sorted(twice)


def _differing(golden: Mapping[int, tuple[bytes, ...]], report: wire.Report) -> list[int]:
    off = report.flag(wire.NVDEC0) is False
    return [
        index
        for index, values in sorted(golden.items())
        if not (index == _NVDEC0_INDEX and off)
        and not any(hmac.compare_digest(value, report.measurements.get(index + 1, b"")) for value in values)
    ]
