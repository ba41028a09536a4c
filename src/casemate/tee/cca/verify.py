"""Judge a CCA token: both signatures, what binds the realm to its platform, profile, nonce. Every failed rule is told.

Rules (checks)
  cca.given.platform-key    the relying party gave a key of this platform; without one nobody can judge (`Unusable`)
  cca.platform.signature    ES256 or ES384 by one of the keys that were given for this platform
  cca.realm.signature       ES256 or ES384 by the realm's key (RAK), which the realm token carries
  cca.binding               the platform token names the hash of that key: else any key could speak for the platform
  cca.profile               the two profiles are known and belong together
  cca.report_data           the realm's challenge is what was asked for
  cca.initdata              the realm's personalization value is the initdata's digest
Rules (cautions)
  cca.lifecycle             the platform is in the state "secured": in debug states its maker, or anybody, reads realms
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any

from casemate.errors import Unusable
from casemate.schema.claims import Claims
from casemate.schema.endorsements import PRODUCTION, Endorsements
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request
from casemate.tee.cca import keys as platform_keys
from casemate.tee.cca import report as wire
from casemate.tee.rules import Rules
from casemate.wire.encoding import b64

NAME = "cca"
_2023, _2024, _2026 = (f"tag:arm.com,{year}:" for year in (2023, 2024, 2026))
# The realm's profiles that go with each platform profile. Legacy realms name none.
PROFILES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        wire.LEGACY: ("",),
        f"{_2023}cca_platform#1.0.0": (f"{_2023}realm#1.0.0",),
        f"{_2024}cca_platform#2.0.0": (f"{_2024}realm#2.0.0",),
        f"{_2026}cca_platform#2.0.0": (f"{_2026}realm#2.0.0",),
        f"{_2026}cca_platform#2.0.0;delegated": (f"{_2026}realm#2.0.0",),
        f"{_2026}cca_platform#2.0.0#delegated": (f"{_2026}realm#2.0.0",),
    }
)
_ALGORITHMS = {"sha-256": hashlib.sha256, "sha-384": hashlib.sha384, "sha-512": hashlib.sha512}


def verify(evidence: Evidence, endorsements: Endorsements, request: Request, now: datetime) -> Claims:
    """Claims of a genuine token, or `Refused` with every failed rule; `Unusable` without a key of its platform.

    A token has no dates of its own, so `now` decides nothing and the claims have no end.
    """
    del now
    if evidence.tee != NAME:
        raise Unusable(f"evidence of {evidence.tee[:32]!r} was given to the CCA room")
    token = wire.parse_evidence(evidence.primary)
    rules = Rules(NAME)
    voucher = _platform(token.platform, endorsements, rules)
    _realm(token, rules)
    _profile(token, rules)
    _asked(token.realm, request, rules)
    state = wire.LIFECYCLES[token.platform.lifecycle >> 8]
    debug = token.platform.lifecycle >> 8 in wire.DEBUG
    secured = token.platform.lifecycle >> 8 == wire.SECURED
    rules.caution("lifecycle", secured, "secured", f"{state} ({token.platform.lifecycle:#06x})",
                  "the platform does not keep its promises in this state")  # fmt: skip
    rules.settle("given.")
    if voucher is None:
        raise rules.refusal()
    production = voucher.platform_class == PRODUCTION
    return Claims(
        tee=NAME,
        platform_class=voucher.platform_class,
        memory_encrypted=production,
        debug=debug,
        measurement=_measurement(token.realm),
        report_data=token.realm.challenge.hex(),
        init_data=token.realm.personalization.hex(),
        fresh=request.report_data is not None,
        vouched_by=voucher.name,
        values=_values(token),
        checks=tuple(rules.checks),
        cautions=tuple(rules.cautions),
        rests_on=("rim",),  # the realm's own software extends the others
    )


def _platform(platform: wire.Platform, endorsements: Endorsements, rules: Rules) -> platform_keys.PlatformKey | None:
    """The given key that signed the platform token."""
    keys = [k for k in platform_keys.given(endorsements) if k.of(platform.instance, platform.implementation)]
    shown = f"instance {platform.instance.hex()}"
    ok = rules.check("given.platform-key", bool(keys), f"a public key of the platform {shown}", f"{len(keys)} given",
                     "get the platform's public key (CPAK) from its maker and give it as an anchor")  # fmt: skip
    voucher = next((k for k in keys if k.key is not None and platform.message.verify(k.key)), None)
    if ok:
        found = voucher.name if voucher else f"no such signature (algorithm {platform.message.algorithm})"
        if all(k.key is None for k in keys):
            found = "a key that is no point of its curve"
        rules.check("platform.signature", voucher is not None, "signed by a given key of this platform", found,
                    "the token was changed, or the key is another platform's")  # fmt: skip
    return voucher


def _realm(token: wire.Token, rules: Rules) -> None:
    realm, platform = token.realm, token.platform
    ok = realm.message.verify(realm.key)
    found = "signed" if ok else f"no such signature (algorithm {realm.message.algorithm})"
    rules.check("realm.signature", ok, "signed by the realm's key", found, "the token was changed")
    workload = platform.profile.startswith(_2026)
    bound = platform.workload if workload else platform.challenge
    algorithm = _ALGORITHMS.get(realm.key_algorithm)
    if algorithm is None:
        rules.check("binding", False, " or ".join(_ALGORITHMS), realm.key_algorithm, "the token was changed")
        return
    digest = algorithm(realm.key_bytes).digest()
    same = hmac.compare_digest(digest, bound)
    rules.check("binding", same, f"{realm.key_algorithm} of the realm's key: {digest.hex()}", bound.hex() or "none",
                "the realm's token is not of this platform")  # fmt: skip


def _profile(token: wire.Token, rules: Rules) -> None:
    platform, realm = token.platform.profile, token.realm.profile
    known = PROFILES.get(platform)
    named = {"": "a realm without a profile"}
    expected = f"{platform} and " + " or ".join(named.get(p, p) for p in known) if known else " or ".join(PROFILES)
    found = f"{platform} and {named.get(realm, realm)}"
    rules.check("profile", known is not None and realm in known, expected, found, "this kind of token is not known")


def _asked(realm: wire.Realm, request: Request, rules: Rules) -> None:
    if request.report_data is not None:
        rules.register("report_data", request.report_data, realm.challenge, "the realm answered another question")
    if request.initdata_digest is not None:
        hint = "the realm was started with other initdata, or none"
        rules.initdata(request.initdata_digest, realm.personalization, hint)


def _measurement(realm: wire.Realm) -> dict[str, str]:
    extensible = {f"rem{i}": value.hex() for i, value in enumerate(realm.extensible)}
    return {"rim": realm.initial.hex()} | extensible


def _values(token: wire.Token) -> dict[str, Any]:
    """The claims under the names of Veraison's JSON form, which CoCo's verifier takes over."""
    platform, realm = token.platform, token.realm
    return {
        "realm": {
            "cca-realm-profile": realm.profile,
            "cca-realm-challenge": b64(realm.challenge),
            "cca-realm-personalization-value": b64(realm.personalization),
            "cca-realm-initial-measurement": b64(realm.initial),
            "cca-realm-extensible-measurements": [b64(value) for value in realm.extensible],
            "cca-realm-hash-algo-id": realm.algorithm,
            "cca-realm-public-key": b64(realm.key_bytes),
            "cca-realm-public-key-hash-algo-id": realm.key_algorithm,
            "cca-realm-mec-policy": realm.encryption,
        },
        "platform": {
            "cca-platform-profile": platform.profile,
            "cca-platform-challenge": b64(platform.challenge),
            "cca-platform-implementation-id": b64(platform.implementation),
            "cca-platform-instance-id": b64(platform.instance),
            "cca-platform-config": b64(platform.configuration),
            "cca-platform-lifecycle": platform.lifecycle,
            "cca-platform-sw-components": [_component(item) for item in platform.components],
            "cca-platform-service-indicator": platform.service,
            "cca-platform-hash-algo-id": platform.algorithm,
        },
        "lifecycle": wire.LIFECYCLES[platform.lifecycle >> 8],
        "implementation_id": platform.implementation.hex(),
        "instance_id": platform.instance.hex(),
        "report_data": realm.challenge.hex(),
        "init_data": realm.personalization.hex(),
    }


def _component(item: wire.Component) -> dict[str, str]:
    found = {
        "measurement-type": item.kind,
        "measurement-value": b64(item.measurement),
        "version": item.version,
        "signer-id": b64(item.signer),
        "hash-algo-id": item.algorithm,
    }
    return {name: value for name, value in found.items() if value}
