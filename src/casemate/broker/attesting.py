"""The attestation service alone: evidence in, a signed result out. Nothing is released, so nothing is recorded.

Standard: trustee, attestation-service REST at 0.20. A result of this door says nothing of freshness unless whoever asks
chose the runtime data, and opens nothing at this broker: it has another issuer, and no session.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from casemate import __version__
from casemate.broker import hearing, journal, policies, questions
from casemate.broker.refusals import Unauthenticated
from casemate.drivers import collateral
from casemate.drivers.store import registry
from casemate.errors import Finding, Malformed, Refused, Unusable
from casemate.policy import appraise
from casemate.release import ear, initclaims
from casemate.schema.claims import Claims
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request
from casemate.tee import asking, composite
from casemate.wire import jcs
from casemate.wire.encoding import b64, unb64u

if TYPE_CHECKING:
    from casemate.broker.assemble import Broker
    from casemate.schema.kbs import AsRequest, AsRuntimeData, AsVerification

ISSUER = "casemate-attestation-service"
GROUP = " service"  # no tenant: its callers spend nothing of what guests have
MAX_REQUESTS = 16
HASHES = ("sha256", "sha384", "sha512")


class _Judged(NamedTuple):
    """One attester's claims, and those of the data that its evidence bound."""

    claims: Claims
    runtime: dict[str, Any] | None
    bound: dict[str, Any] | None


def evaluate(broker: Broker, asked: AsRequest) -> str:
    """An EAR (JWT) of all evidence, or the refusal of whatever is not genuine."""
    if not 1 <= len(asked.verification_requests) <= MAX_REQUESTS:
        raise Malformed(f"verification_requests: 1 to {MAX_REQUESTS} are wanted")
    now = broker.clock()
    with journal.counted(broker, "evaluate"):
        judged = [_one(broker, wanted, now) for wanted in asked.verification_requests]
    with broker.store.read() as tx:
        base = policies.basis(broker, tx, "", now)
    policy, submods, counts = (asked.policy_ids or [policies.DEFAULT])[0], dict[str, Any](), Counter[str]()
    for one in judged:
        for name, submod in _shaped(broker, base, one, policy, now).items():
            kind = name.rstrip("0123456789")
            submods[f"{kind}{counts[kind]}"] = submod
            counts[kind] += 1
    result = {
        "eat_profile": ear.PROFILE,
        "iss": ISSUER,
        "iat": int(now.timestamp()),
        "exp": int(now.timestamp()) + broker.settings.token_seconds,
        "ear.verifier-id": ear.verifier(__version__),
        "submods": submods,
    }
    return ear.sign(result, broker.signer.private)


def _shaped(
    broker: Broker, base: policies.Basis, one: _Judged, policy: str, now: datetime
) -> dict[str, dict[str, Any]]:
    """The submodules of one attester, with the vectors of the broker's own policies."""
    findings = _appraised(broker, one.claims, now)
    submods = ear.submods([one.claims], findings, one.runtime or {}, one.bound)
    if one.runtime is None:
        for submod in submods.values():
            submod["ear.veraison.annotated-evidence"].pop("runtime_data_claims", None)
    asked: dict[str, Any] = {"initdata": one.bound, "policy_id": policy, "group": GROUP}
    shaped = policies.attestation(broker, base, [one.claims], findings, submods, **asked)
    shaped.demand()
    return shaped.submods


def challenge(broker: Broker, tee: str) -> str:
    """A nonce for whoever asks for evidence; `Unusable` for a TEE whose question only a session can keep."""
    name = hearing.accepted(broker, tee)
    if asking.is_own(name):
        raise Unusable(
            f"a challenge for {name} has a key that only a session keeps", hint="attest at /kbs/v0/auth and /attest"
        )
    return b64(os.urandom(32))


def _one(broker: Broker, wanted: AsVerification, now: datetime) -> _Judged:
    tee = hearing.accepted(broker, wanted.tee)
    raw = unb64u(wanted.evidence.rstrip("="), "evidence")
    document, digest = _initdata(wanted)
    evidence = Evidence(tee=tee, primary=jcs.parse_object(raw, "evidence"), initdata=document)
    report_data, runtime = _runtime(wanted.runtime_data, wanted.runtime_data_hash_algorithm)
    try:
        gathered = composite.endorse(evidence, collateral.offline(broker.settings.collateral_store))
        endorsements = questions.anchored(broker, gathered)
        request = Request(report_data=report_data, initdata_digest=digest)
        (claims,) = composite.verify_all(evidence, endorsements, request, now)
    except collateral.Absent as error:
        raise Refused.because(
            "collateral.absent", expected=error.url, found="not in this service's store", hint="its operator adds it"
        ) from error
    except Refused as error:
        raise Unauthenticated(error.findings) from error
    if document is not None and claims.init_data:
        hearing.demand_plain(document)
    return _Judged(claims, runtime, initclaims.claims(document) if claims.init_data else None)


def _runtime(given: AsRuntimeData | None, name: str) -> tuple[bytes | None, dict[str, Any] | None]:
    """(report data, claims): raw data is the report data, structured data is hashed (RFC 8785)."""
    if given is None or (given.raw is None and given.structured is None):
        return None, None
    if given.raw is not None and given.structured is not None:
        raise Malformed("runtime_data: raw or structured is wanted, not both")
    if given.structured is None:
        raw = unb64u((given.raw or "").rstrip("="), "runtime_data.raw")
        if not 1 <= len(raw) <= 64:
            raise Malformed("runtime_data.raw: 1 to 64 bytes are wanted")
        return raw, None
    if name.lower() not in HASHES:
        raise Malformed(f"runtime_data_hash_algorithm: {' or '.join(HASHES)} is wanted")
    return hashlib.new(name.lower(), jcs.canonical(given.structured)).digest(), given.structured


def _initdata(wanted: AsVerification) -> tuple[bytes | None, bytes | None]:
    """(document, digest), None each where there is none."""
    given = wanted.init_data
    if given is None:
        return None, None
    if given.init_data_toml is not None and given.init_data_digest is None:
        document = hearing.bounded(given.init_data_toml)
        return document, hearing.initdata_digest(document)
    if given.init_data_digest is not None and given.init_data_toml is None:
        return None, unb64u(given.init_data_digest.rstrip("="), "init_data_digest")
    raise Malformed("init_data: a digest or a document is wanted")


def _appraised(broker: Broker, claims: Claims, now: datetime) -> tuple[Finding, ...]:
    """What the broker's own rules say of a guest without a manifest."""
    with broker.store.read() as tx:
        references = registry.references(tx, claims.tee)
    cautions = frozenset(broker.settings.accepted_cautions)
    return appraise.appraise(
        claims, None, None, references=references, broker_pin=broker.pin, now=now, cautions=cautions
    ).findings
