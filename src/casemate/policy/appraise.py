"""Appraise (RFC 9334 section 8.4): claims against manifest, app, reference values and time, with every rule told.

Rules, all of them always applied
1. `evidence.fresh`, `evidence.current`, `evidence.debug`: fresh evidence, vouched for at this time, of an attester
   that nobody can debug; no caution of its room, an accepted TCB status, the guest's most privileged layer
   (`policy.platform`).
2. `manifest.present`, `app.known`, `manifest.app`, `manifest.name`: a manifest that names a founded app by id and name.
3. `platform.class`, `platform.memory`: a platform class that the app allows; production means encrypted memory.
4. `manifest.broker`: the manifest names the broker that is asked.
5. `release.active`: the manifest is an active release of the app.
6. `measurement.<register>`: equal to one unexpired reference value in each of its registers; absence is a refusal, also
   of all registers that the claims rest on (`Claims.rests_on`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from casemate.errors import Finding
from casemate.policy import platform
from casemate.schema.app import AppStatement
from casemate.schema.claims import Claims
from casemate.schema.decision import Decision
from casemate.schema.endorsements import PRODUCTION
from casemate.schema.manifest import Manifest
from casemate.schema.reference import ReferenceValues

# Rule 3 judges the class of the platform: each app says which it allows.
_PLATFORM = platform.PlatformPolicy(development=True, max_privilege_level=0)

ACTIVE = "active"
REVOKED = "revoked"

# What a register stands for, so that a differing one can be explained. Names as in schema/measurement.py.
_MEANING = {
    "pcr0": "the firmware is another build",
    "pcr2": "option ROMs or added devices are in the boot path",
    "pcr3": "option ROM settings differ",
    "pcr4": "the kernel is another one",
    "pcr6": "the firmware's host-specific settings differ",
    "pcr7": "the Secure Boot state or its keys differ",
    "pcr9": "the kernel command line or the initrd is another one",
    "measurement": "firmware, kernel, initrd, command line or the number of vCPUs differs",
    "mrtd": "the firmware is another build",
    "rtmr0": "the virtual hardware or the firmware's settings differ",
    "rtmr1": "the kernel is another one",
    "rtmr2": "the kernel command line or the initrd is another one",
}


def appraise(
    claims: Claims,
    manifest: Manifest | None,
    statement: AppStatement | None,
    *,
    references: Iterable[ReferenceValues],
    broker_pin: str,
    now: datetime,
    cautions: frozenset[str] = frozenset(),
    digest: str | None = None,
) -> Decision:
    """The decision with all findings. `manifest` is the one that the evidence binds; `statement` tells of its app.

    `cautions` are rules of the claims' cautions that the relying party takes upon itself. `digest` is the manifest's,
    from a caller that has worked it out.
    """
    named = "" if manifest is None else digest or manifest.digest
    return Decision(
        findings=(
            *_attester(claims, now, replace(_PLATFORM, cautions=cautions) if cautions else _PLATFORM),
            *_app(manifest, statement, named),
            *_platform(claims, statement),
            _broker(manifest, broker_pin),
            release(named, statement),
            *measurement(claims, references, now),
        )
    )


def release(manifest_digest: str, statement: AppStatement | None) -> Finding:
    """Rule 5, also asked at every release of a key: a revocation counts at once."""
    states = {entry.manifest_digest: entry.state for entry in statement.releases} if statement else {}
    found = states.get(manifest_digest, "unknown") if manifest_digest else "no manifest"
    hint = ""
    if found == REVOKED:
        hint = "the app's owner revoked this release; run a newer one"
    elif found != ACTIVE:
        hint = "the manifest was changed, or never registered: casemate release add <app> <manifest>"
    label = f"{manifest_digest}: {found}" if manifest_digest else found
    return Finding("release.active", "an active release of the app", label, hint, ok=found == ACTIVE)


def measurement(claims: Claims, references: Iterable[ReferenceValues], now: datetime) -> tuple[Finding, ...]:
    """Rule 6: one finding when a reference value matches, else one for each register that departs from the nearest."""
    known = [r for r in references if r.tee == claims.tee and r.values]
    current = [r for r in known if r.expires is None or r.expires > now]
    if not current:
        found = "only expired ones" if known else "none"
        hint = "register the guest image's reference values (casemate up does it for the local guest image)"
        return (Finding("measurement.reference", f"a reference value for {claims.tee}", found, hint),)
    nearest = min(current, key=lambda r: len(_departures(claims, r)))
    departures = _departures(claims, nearest)
    if not departures:
        return (Finding("measurement.reference", "an accepted guest image", nearest.name, ok=True),)
    return tuple(
        Finding(
            f"measurement.{register}",
            f"{nearest.values.get(register, 'a reference value for it')} ({nearest.name})",
            claims.measurement.get(register, "absent"),
            _MEANING.get(register, "what was booted is not the accepted guest image"),
        )
        for register in departures
    )


def _departures(claims: Claims, reference: ReferenceValues) -> list[str]:
    departing = [name for name, value in reference.values.items() if claims.measurement.get(name) != value.lower()]
    unknown = claims.rests_on[:1] if not set(claims.rests_on) & set(reference.values) else ()
    return sorted([*departing, *unknown])


def _attester(claims: Claims, now: datetime, policy: platform.PlatformPolicy) -> tuple[Finding, ...]:
    until = claims.valid_until
    current = until is None or until > now
    hint = "" if current else "certificates or collateral behind the evidence are out of date; renew them"
    return (
        Finding(
            "evidence.current", f"valid at {now:%Y-%m-%dT%H:%MZ}", f"until {until or 'withdrawn'}", hint, ok=current
        ),
        _equal("evidence.fresh", True, claims.fresh, "the evidence answers no question of this broker"),
        _equal("evidence.debug", False, claims.debug, "start the workload without debugging"),
        *platform.judge(claims, policy),
    )


def _app(manifest: Manifest | None, statement: AppStatement | None, digest: str) -> tuple[Finding, ...]:
    if manifest is None:
        hint = 'put the manifest into initdata as "casemate.json" (casemate run does it)'
        return (Finding("manifest.present", "a manifest in the attested initdata", "none", hint),)
    present = Finding("manifest.present", "a manifest in the attested initdata", digest, ok=True)
    if statement is None:
        hint = "found the app first: casemate app found"
        return present, Finding("app.known", "an app that this broker knows", manifest.app, hint)
    return (
        present,
        Finding("app.known", "an app that this broker knows", statement.app_id, ok=True),
        _equal("manifest.app", statement.app_id, manifest.app, "the manifest names another app"),
        _equal("manifest.name", statement.founding.name, manifest.name, "the manifest's name is not the app's"),
    )


def _platform(claims: Claims, statement: AppStatement | None) -> tuple[Finding, ...]:
    allowed = statement.platforms if statement else (PRODUCTION,)
    findings = [
        Finding(
            "platform.class",
            " or ".join(allowed) or "none",
            claims.platform_class,
            "" if claims.platform_class in allowed else "use another platform, or let the app's owner allow this class",
            ok=claims.platform_class in allowed,
        )
    ]
    if claims.platform_class == PRODUCTION:
        findings.append(
            _equal("platform.memory", True, claims.memory_encrypted, "a bare TPM does not keep the host out")
        )
    return tuple(findings)


def _broker(manifest: Manifest | None, pin: str) -> Finding:
    named = tuple(broker.key for broker in manifest.brokers) if manifest else ()
    hint = "" if pin in named else "the manifest must name this broker's key: `pin` in casemate status"
    return Finding("manifest.broker", pin, ", ".join(named) or "none", hint, ok=pin in named)


def _equal(rule: str, expected: object, found: object, hint: str) -> Finding:
    ok = expected == found
    return Finding(rule, str(expected), str(found), "" if ok else hint, ok=ok)
