"""The default policy on genuine evidence: what `casemate verify` accepts and what the broker builds on.

Rules, all of them always applied
1. each caution of the claims is refused unless its rule is accepted by name
2. `platform.tcb`: where the vendor states a TCB status, it is an accepted one
3. `platform.class`: a production platform, unless development is accepted
4. `platform.privilege`: at most the given level, where one is given
"""

from __future__ import annotations

from dataclasses import dataclass

from casemate.errors import Finding
from casemate.schema.claims import Claims
from casemate.schema.endorsements import PRODUCTION

ACCEPTED_TCB = frozenset({"UpToDate", "SWHardeningNeeded"})


@dataclass(frozen=True)
class PlatformPolicy:
    """What is accepted beyond the plain case. `cautions` are rule names such as ``tdx.attributes.debug``."""

    tcb: frozenset[str] = ACCEPTED_TCB
    cautions: frozenset[str] = frozenset()
    development: bool = False
    max_privilege_level: int | None = None


DEFAULT = PlatformPolicy()


def judge(claims: Claims, policy: PlatformPolicy = DEFAULT) -> tuple[Finding, ...]:
    """Every rule with its outcome; the claims are accepted when all are ok."""
    findings = [_caution(caution, policy) for caution in claims.cautions]
    if claims.tcb_status:
        ok = claims.tcb_status in policy.tcb
        hint = "" if ok else "update the platform, or accept this status by name after reading its advisories"
        findings.append(Finding("platform.tcb", " or ".join(sorted(policy.tcb)), claims.tcb_status, hint, ok))
    if not policy.development:
        ok = claims.platform_class == PRODUCTION
        hint = "" if ok else "this platform's host can cheat: it is for development only"
        findings.append(Finding("platform.class", PRODUCTION, claims.platform_class, hint, ok))
    if policy.max_privilege_level is not None:
        ok = claims.privilege_level <= policy.max_privilege_level
        hint = "" if ok else "a layer above the guest decides what it shows; accept that layer's measurement first"
        wanted = f"level {policy.max_privilege_level} or more privileged"
        findings.append(Finding("platform.privilege", wanted, f"level {claims.privilege_level}", hint, ok))
    return tuple(findings)


def _caution(caution: Finding, policy: PlatformPolicy) -> Finding:
    if caution.rule not in policy.cautions:
        return caution
    return Finding(caution.rule, caution.expected, caution.found + " (accepted by name)", ok=True)
