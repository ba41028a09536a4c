"""The broker's part of the main path: steps 4 and 6 to 10, in order (ARCHITECTURE.md)."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from msgspec import structs

from casemate.broker import consult, hearing, journal, leases, policies, proof, questions, resources, sessions
from casemate.broker.refusals import Unauthenticated
from casemate.broker.sessions import Session
from casemate.policy import appraise
from casemate.release import ear
from casemate.tee import composite

if TYPE_CHECKING:
    from casemate.broker.assemble import Broker
    from casemate.errors import Malformed
    from casemate.schema.kbs import Attestation, AuthRequest


@dataclass(frozen=True)
class Asked:
    """Step 4's answer: the nonce, the salt that shows whose nonce it is, the sealed challenge, `extra-params`."""

    nonce: str
    salt: bytes
    cookie: str
    extra: questions.Extra


@dataclass(frozen=True)
class Admitted:
    """Step 9's answer: a token, a cookie that says the same, the id of the decision's receipt, and the lease."""

    token: str
    cookie: str
    receipt: str
    lease: str
    lease_seconds: int


def request(broker: Broker, asked: AuthRequest, salt: bytes) -> Asked:
    """Step 4: a fresh nonce, bound to this broker's key so that it can't be passed on as another broker's."""
    with journal.counted(broker, "auth"):
        tee = hearing.admissible(broker, asked)
        challenge, extra = questions.question(broker, tee, asked, salt)
    return Asked(challenge.nonce, salt, broker.cookies.seal(challenge), extra)


def begun(broker: Broker, cookie: str, *, unspent: bool = False) -> None:
    """Whether a cookie is a challenge of ours, and not answered yet: asked before a long attestation is read."""
    with journal.counted(broker, "attest"):
        question = hearing.challenge(broker, cookie, broker.clock())
        if unspent:
            hearing.demand_unspent(broker, question)


def wasted(broker: Broker, cookie: str, error: Malformed) -> None:
    """An attestation that cannot be read is an answer to its challenge too: whoever sends rubbish asks anew."""
    now = broker.clock()
    question = hearing.challenge(broker, cookie, now)
    with suppress(Unauthenticated):
        hearing.demand_unspent(broker, question)
        with journal.failures(broker, "attest", now, spends=hearing.spending(question), tee=question.tee):
            raise error


def attest(broker: Broker, cookie: str, said: Attestation, renews: str = "") -> Admitted:
    """Steps 6 to 9. `Unauthenticated` when the evidence is not genuine, `Refused` when policy says no.

    `renews` is the lease that the guest says it has.
    """
    now, lap = broker.clock(), broker.meter.laps("attest")
    with journal.counted(broker, "attest"):
        subject = hearing.subject(broker, cookie, said, now)  # the session's own question, answered once
    lap("subject")

    with journal.failures(broker, "attest", now, spends=subject.ticket, tee=subject.evidence.tee):
        endorsements = hearing.endorse(broker, subject)  # 6
        lap("endorse")
        judged = hearing.verify(subject, endorsements, now)  # 7
        lap("verify")
        claims = composite.joined(judged)
        manifest, digest = hearing.manifest(subject)
        bound = hearing.told(subject) if claims.init_data else None

    known = consult.consult(broker, claims, manifest, renews, now)  # 8
    lap("consult")
    decision = appraise.appraise(  # 9
        claims,
        manifest,
        known.statement,
        references=known.references,
        broker_pin=broker.pin,
        now=now,
        cautions=frozenset(broker.settings.accepted_cautions),
        digest=digest,
    )
    lap("appraise")
    submods = ear.submods(judged, decision.findings, subject.runtime, bound)
    shaped = policies.attestation(broker, known.basis, judged, decision.findings, submods, initdata=bound)
    lap("policy")
    session = sessions.begun(
        claims,
        known.app_id,
        digest,
        subject.tee_pubkey,
        expires=sessions.until(now, broker.settings.token_seconds),
        proofs=(proof.evidence(subject.evidence), proof.collateral(endorsements)),
    )
    lease = leases.plan(broker, known.leased, session, renews, now, allowed=decision.allowed and not shaped.findings)
    session = structs.replace(session, lease=lease.id, lease_until=lease.until)
    findings = (*claims.checks, *decision.findings, *shaped.findings, *lease.findings)
    kept = policies.kept(broker, session, shaped, allowed=all(f.ok for f in findings), recorded=lease.recorded)
    receipt = journal.decided(broker, "attest", now, session, findings, spends=subject.ticket, **kept)
    lap("record")
    if manifest is not None:
        decision.demand()  # without a manifest there is a token, as CoCo's guests expect, and it opens nothing
        lease.demand()
    shaped.demand()
    token = broker.signer.token(session, shaped.submods, now)
    lap("token")
    return Admitted(token, broker.cookies.seal(session), receipt, lease.id, leases.left(session, now))


def release(
    broker: Broker,
    session: Session,
    path: str,
    known: int | None,
    version: int | None = None,
    *,
    query: dict[str, str] | None = None,
) -> resources.Grant:
    """Step 10: a resource, sealed to the attested guest's key; nothing but its version when the guest has that one."""
    now, lap = broker.clock(), broker.meter.laps("release")
    with broker.store.read() as tx:
        asked = policies.ask(broker, tx, session, path)
        held = resources.held(broker, tx, path, version) if asked.open else None
    findings = policies.judge(broker, session, asked, query=query)  # before what is there, or not, is told
    lap("judge")
    grant = resources.seal(broker, session, path, known, held) if held and all(f.ok for f in findings) else None
    lap("seal")
    if grant is None or grant.sealed is not None:  # a poll that hands over nothing is no entry
        facts = {"version": grant.version, "lease": session.lease} if grant else None
        receipt = journal.decided(broker, "release", now, session, findings, resource=path, facts=facts)
        grant = replace(grant, receipt=receipt) if grant else None
        lap("record")
    return grant or resources.refuse(findings)
