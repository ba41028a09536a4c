"""From what a guest sent to claims: the session's question, the evidence, its endorsements and its verification."""

from __future__ import annotations

import hashlib
import hmac
import tomllib
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from casemate.boot import initdata
from casemate.broker.refusals import Unauthenticated
from casemate.broker.sessions import Challenge, absent
from casemate.crypto import jwk
from casemate.drivers import collateral
from casemate.drivers.store import record, registry
from casemate.errors import Malformed, Refused, Unusable
from casemate.release import session as rcar
from casemate.schema.claims import Claims
from casemate.schema.endorsements import Endorsements
from casemate.schema.evidence import Evidence
from casemate.schema.kbs import Attestation, AuthRequest
from casemate.schema.manifest import Manifest
from casemate.schema.request import Request
from casemate.tee import ROOMS, composite

if TYPE_CHECKING:
    from casemate.broker.assemble import Broker

# Names that older clients send (kbs-types 0.12).
_ALIASES = {"azsnpvtpm": "az-snp-vtpm", "aztdxvtpm": "az-tdx-vtpm"}
_KEY_MEMBERS = ("kty", "crv", "alg", "x", "y")


@dataclass(frozen=True)
class Subject:
    """What is to be judged: evidence, the request it must answer, the guest's key, the nonce."""

    evidence: Evidence
    request: Request
    tee_pubkey: dict[str, Any]
    nonce: str


def admissible(broker: Broker, asked: AuthRequest) -> str:
    """The room's name for the TEE that asks; refused when its protocol or TEE is not accepted."""
    if asked.version.split(".")[:2] != rcar.PROTOCOL.split(".")[:2]:
        raise Unauthenticated.because(
            "session.version", expected=rcar.PROTOCOL, found=asked.version[:32], hint="use a client of that protocol"
        )
    tee = _ALIASES.get(asked.tee, asked.tee)
    _demand_accepted(broker, tee)
    return tee


def _demand_accepted(broker: Broker, tee: str) -> None:
    if tee in broker.settings.refused_tees:
        raise Refused.because(
            f"tee.{tee}",
            expected="evidence that proves something",
            found=tee,
            hint="for tests alone an operator can take it out of `refused_tees`",
        )
    if tee not in ROOMS:
        raise Unusable(f"TEE {tee[:32]!r} is not known", hint="known: " + ", ".join(sorted(ROOMS)))


def challenge(broker: Broker, cookie: str, now: datetime) -> Challenge:
    """The question that a session's cookie carries."""
    found = broker.cookies.open(cookie, now) if cookie else None
    if not isinstance(found, Challenge):
        raise absent()
    return found


def subject(broker: Broker, cookie: str, said: Attestation, now: datetime) -> Subject:
    """The guest's words beside the question that this session asked; a nonce that was used is refused at once."""
    question = challenge(broker, cookie, now)
    runtime = said.runtime_data
    if not hmac.compare_digest(runtime.nonce.encode(), question.nonce.encode()):
        raise Unauthenticated.because(
            "session.nonce",
            expected="the nonce of this session",
            found="another nonce",
            hint="evidence serves one session; start again at /kbs/v0/auth",
        )
    with broker.store.read() as tx:
        if record.is_spent(tx, question.nonce):
            raise replay()
    tee_pubkey = key_members(runtime.tee_pubkey)
    document = _document(said)
    additional = said.tee_evidence.additional_evidence
    evidence = Evidence(
        tee=question.tee, primary=said.tee_evidence.primary_evidence, additional=additional, initdata=document
    )
    for device in composite.devices(evidence):
        _demand_accepted(broker, device.tee)
    return Subject(
        evidence=evidence,
        request=Request(
            report_data=rcar.report_data(question.nonce, tee_pubkey, additional),
            initdata_digest=hashlib.sha256(document).digest() if document is not None else None,
        ),
        tee_pubkey=tee_pubkey,
        nonce=question.nonce,
    )


def key_members(given: dict[str, Any]) -> dict[str, Any]:
    """The guest's key in the members that the protocol hashes, and no other; `Malformed` unless it can be used."""
    kept = {name: given[name] for name in _KEY_MEMBERS if name in given}
    if len(kept) != len(_KEY_MEMBERS) or kept["alg"] != jwk.ALGORITHM:
        raise Malformed(f"tee-pubkey: an EC key for {jwk.ALGORITHM} is wanted")
    jwk.ec_public_key(kept)
    return kept


def endorse(broker: Broker, subject: Subject) -> Endorsements:
    """Step 6: what the room gathers about this evidence, with the anchors that this broker trusts and no others."""
    try:
        gathered = composite.endorse(subject.evidence, collateral.offline(broker.settings.collateral_store))
    except collateral.Absent as error:  # nothing is fetched for a guest
        raise Refused.because(
            "collateral.absent",
            expected=error.url,
            found="not in this broker's collateral store",
            hint="its operator runs: casemate collateral fetch --store STORE --url URL",
        ) from error
    with broker.store.read() as tx:
        return msgspec.structs.replace(gathered, anchors=registry.anchors(tx))


def verify(subject: Subject, endorsements: Endorsements, now: datetime) -> Claims:
    """Step 7: claims, or every rule that evidence broke; devices beside the CPU are judged with it, all or none."""
    bound = composite.device_request(subject.nonce, subject.tee_pubkey)
    return composite.joined(composite.verify_all(subject.evidence, endorsements, subject.request, now, device=bound))


def manifest(subject: Subject) -> Manifest | None:
    """The manifest in the attested initdata; None when a guest brought none, as CoCo's guests do."""
    document = subject.evidence.initdata
    if document is None or not _has_manifest(document):
        return None
    return initdata.parse(document).manifest


def replay() -> Unauthenticated:
    """The refusal of a nonce that was used before."""
    return Unauthenticated.because(
        "session.replay",
        expected="a nonce that was not used before",
        found="one that was",
        hint="somebody repeats an attestation, or a client did not start again at /kbs/v0/auth",
    )


def _document(said: Attestation) -> bytes | None:
    if said.init_data is None:
        return None
    if said.init_data.format != "toml":
        raise Malformed("init-data: the format `toml` is wanted")
    document = said.init_data.body.encode("utf-8", "surrogatepass")
    if len(document) > initdata.MAX_DOCUMENT:
        raise Malformed(f"init-data: at most {initdata.MAX_DOCUMENT} bytes are allowed")
    return document


def _has_manifest(document: bytes) -> bool:
    try:
        data = tomllib.loads(document.decode("utf-8")).get("data")
    except (ValueError, RecursionError) as error:
        raise Malformed("initdata: not TOML") from error
    return isinstance(data, dict) and initdata.ENTRY in data
