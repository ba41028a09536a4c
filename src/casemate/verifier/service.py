"""A stranger's check of a running service: who runs what, where, and vouched for by whom.

Steps
1. Take the key that the service's TLS endpoint proves to hold.
2. Ask the same endpoint for evidence over our own nonce; the guest looks at its own TLS port and binds that key.
3. Verify the evidence against the trusted anchors: genuine, fresh, and bound to nonce, TLS key and initdata.
4. Ask the trusted broker for its signed statement of the app, and appraise: active release, platform, reference values.

A key that only the host knows (a proxy in between) fails at step 3, because the guest binds the key that it serves.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from casemate.boot import initdata as initdata_paper
from casemate.drivers import http, tlspeer
from casemate.errors import Finding, Malformed, Refused, Unusable
from casemate.policy import appraise
from casemate.release.session import purpose_data
from casemate.schema.app import AppStatement
from casemate.schema.claims import Claims
from casemate.schema.decision import Decision
from casemate.schema.endorsements import Endorsements
from casemate.schema.evidence import Evidence
from casemate.schema.manifest import Manifest
from casemate.schema.request import Request
from casemate.tee import composite, room
from casemate.tee.room import Fetch
from casemate.verifier.trust import Trust
from casemate.wire import jcs
from casemate.wire.encoding import b64u, unb64

EVIDENCE_PATH = "/.well-known/casemate/evidence"
PURPOSE = "service"
ANSWER_LIMIT = 4 << 20
ATTEMPTS = 4  # the first and three more, for a server that changes its TLS key just then


@dataclass(frozen=True)
class Answer:
    """What the service said, before anything of it is believed."""

    evidence: Evidence
    initdata: bytes
    tls_pin: str
    nonce: bytes


@dataclass(frozen=True)
class Verdict:
    """The outcome: claims and manifest where the evidence was genuine, and every rule that was applied."""

    decision: Decision
    tls_pin: str
    claims: Claims | None = None
    manifest: Manifest | None = None
    statement: AppStatement | None = None


def ask(endpoint: str, *, port: int | None = None, url: str | None = None) -> Answer:
    """Steps 1 and 2: the TLS key of `endpoint` (HOST:PORT) and its evidence over a new nonce.

    `port` is the service's port inside the guest where it differs from the manifest's only TLS port. `url` asks
    another place for the evidence, for services that cannot proxy the well-known path.
    """
    host, _, number = endpoint.rpartition(":")
    if not host or not (number.isascii() and number.isdigit() and len(number) <= 5 and 0 < int(number) <= 65535):
        raise Unusable(f"service {endpoint!r} is not HOST:PORT")
    for _ in range(ATTEMPTS - 1):
        try:
            return _ask(endpoint, tlspeer.pin(host, int(number)), port, url)
        except Refused as refusal:
            if not any(finding.rule == "tls.pin" for finding in refusal.findings):
                raise
    return _ask(endpoint, tlspeer.pin(host, int(number)), port, url)


def _ask(endpoint: str, pin: str, port: int | None, url: str | None) -> Answer:
    """Step 2; `Refused` with the rule `tls.pin` when the endpoint has another key by now."""
    nonce = os.urandom(32)
    query = f"?nonce={b64u(nonce)}" + (f"&port={port}" if port else "")
    if url:
        response = http.request("GET", url + query, timeout=60, limit=ANSWER_LIMIT, insecure=url.startswith("http://"))
    else:
        target = f"https://{endpoint}{EVIDENCE_PATH}{query}"
        response = http.request("GET", target, pin=pin, timeout=60, limit=ANSWER_LIMIT)
    if response.status != 200:
        raise Unusable(
            f"service {endpoint} gives no evidence (HTTP {response.status})",
            hint=f"it must pass {EVIDENCE_PATH} on to /run/casemate/api.sock, and its manifest grant api.evidence",
        )
    return _read(response.body, pin, nonce)


def _read(body: bytes, pin: str, nonce: bytes) -> Answer:
    document = jcs.parse_object(body, "service evidence", limit=ANSWER_LIMIT)
    inner = document.get("evidence")
    initdata = document.get("initdata")
    if not isinstance(inner, dict) or not isinstance(initdata, str):
        raise Malformed("service evidence: `evidence` and `initdata` are wanted")
    tee, primary, additional = inner.get("tee"), inner.get("primary"), inner.get("additional", "")
    if not isinstance(tee, str) or not isinstance(primary, dict) or not isinstance(additional, str):
        raise Malformed("service evidence: `tee`, `primary` and `additional` are wanted")
    raw = unb64(initdata, "service evidence: initdata")
    return Answer(Evidence(tee=tee, primary=primary, additional=additional, initdata=raw), raw, pin, nonce)


def judge(
    answer: Answer, trust: Trust, app_id: str, now: datetime | None = None, *, fetch: Fetch | None = None
) -> Verdict:
    """Steps 3 and 4. Never raises for a refusal: the verdict carries every failed rule.

    `fetch` reads a collateral store, offline; what it lacks is `Unusable`.
    """
    trust.demand_platforms()
    moment = now or datetime.now(UTC)
    expected = purpose_data(PURPOSE, answer.nonce + bytes.fromhex(answer.tls_pin.removeprefix("sha256:")))
    request = Request(report_data=expected, initdata_digest=hashlib.sha256(answer.initdata).digest())
    gathered = room(answer.evidence.tee).endorse(answer.evidence, fetch) if fetch else Endorsements()
    endorsements = msgspec.structs.replace(gathered, anchors=trust.anchors)
    try:
        claims = room(answer.evidence.tee).verify(composite.alone(answer.evidence), endorsements, request, moment)
        manifest = initdata_paper.parse(answer.initdata).manifest
    except Refused as refusal:
        return Verdict(Decision(findings=refusal.findings), answer.tls_pin)
    named = _app_rule(app_id, manifest.app)
    try:
        statement = trust.statement(app_id)
    except Refused as refusal:
        return Verdict(Decision(findings=(*named, *refusal.findings)), answer.tls_pin, claims, manifest)
    decision = appraise.appraise(
        claims, manifest, statement, references=trust.references, broker_pin=trust.broker_pin, now=moment
    )
    findings = (*claims.checks, *named, *decision.findings)
    return Verdict(Decision(findings=findings), answer.tls_pin, claims, manifest, statement)


def _app_rule(wanted: str, found: str) -> tuple[Finding, ...]:
    hint = "" if wanted == found else "the service runs another app than the one you asked for"
    return (Finding("service.app", wanted, found, hint, ok=wanted == found),)


def as_json(verdict: Verdict) -> dict[str, Any]:
    """The verdict in the shape of `casemate verify --json`."""
    claims, manifest, statement = verdict.claims, verdict.manifest, verdict.statement
    return {
        "verdict": "accepted" if verdict.decision.allowed else "refused",
        "tls_key": verdict.tls_pin,
        "tee": claims.tee if claims else None,
        "platform_class": claims.platform_class if claims else None,
        "memory_encrypted": claims.memory_encrypted if claims else None,
        "vouched_by": claims.vouched_by if claims else None,
        "measurement": claims.measurement if claims else {},
        "app": {"id": statement.app_id, "tenant": statement.founding.tenant, "name": statement.founding.name}
        if statement
        else None,
        "manifest": {"digest": manifest.digest, "document": json.loads(manifest.canonical())} if manifest else None,
        "checks": [finding.as_json() for finding in verdict.decision.findings],
    }
