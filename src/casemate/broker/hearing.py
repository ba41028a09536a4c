"""From what a guest sent to claims: the session's question, the evidence, its endorsements and its verification."""

from __future__ import annotations

import hashlib
import hmac
import re
import tomllib
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from msgspec import structs

from casemate.boot import initdata
from casemate.broker import questions, structure
from casemate.broker.refusals import Unauthenticated
from casemate.broker.sessions import Challenge, absent, demand_key
from casemate.crypto import recipient, sm3
from casemate.drivers import collateral
from casemate.drivers.store import record
from casemate.errors import Malformed, Refused, Unusable
from casemate.release import ear, initclaims
from casemate.release import session as rcar
from casemate.schema.claims import Claims
from casemate.schema.endorsements import Anchor, Endorsements
from casemate.schema.evidence import Evidence
from casemate.schema.kbs import Attestation, AuthRequest
from casemate.schema.manifest import Manifest
from casemate.schema.request import Request
from casemate.tee import ROOMS, asking, composite
from casemate.wire import jcs

if TYPE_CHECKING:
    from casemate.broker.assemble import Broker

# Names that older clients send (kbs-types 0.12).
_ALIASES = {"azsnpvtpm": "az-snp-vtpm", "aztdxvtpm": "az-tdx-vtpm"}
_VERSION = re.compile(r"0\.4\.[0-9]{1,6}([-+][0-9A-Za-z.+-]{1,64})?")
_HASHES = ("sha256", "sha384", "sha512")
_MAX_HEAD = 4096
_SMALL = 64 << 10
MAX_CLAIMED = 1 << 20  # of a document without a manifest, which is told to policies as it is
MAX_STRUCTURE = 32 << 10


@dataclass(frozen=True)
class Subject:
    """What is to be judged: evidence, the request it must answer, the guest's key, the nonce, what we kept of it.

    `anchors` are the roots that this broker trusts.
    """

    evidence: Evidence
    request: Request
    tee_pubkey: dict[str, Any]
    nonce: str
    expires: float = 0.0
    state: dict[str, bytes] = field(default_factory=dict, repr=False)
    anchors: tuple[Anchor, ...] = ()

    @property
    def ticket(self) -> record.Ticket:
        """The nonce as it is recorded once spent (at most 64 characters), until its challenge expires."""
        return record.Ticket(ticket(self.nonce), int(self.expires * 1000) + 1)

    @property
    def runtime(self) -> dict[str, Any]:
        """The runtime data claims."""
        return ear.runtime(self.nonce, self.tee_pubkey, self.evidence.additional)


def admissible(broker: Broker, asked: AuthRequest) -> str:
    """The room's name for the TEE that asks; refused when its protocol or TEE is not accepted."""
    exact = broker.settings.strict_trustee
    if asked.version != rcar.PROTOCOL if exact else not _VERSION.fullmatch(asked.version):
        raise Unauthenticated.because(
            "session.version", expected=rcar.PROTOCOL, found=asked.version[:32], hint="use a client of that protocol"
        )
    return accepted(broker, asked.tee)


def accepted(broker: Broker, name: str) -> str:
    """The room's name for a TEE on the wire; `Refused` when refused by setting, `Unusable` when not known."""
    tee = _ALIASES.get(name, name)
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
        demand_key(broker, broker.store.known.at(tx), tx, question.key)
        if record.used(tx, [ticket(question.nonce)]):
            raise replay()
        anchors = questions.trusted(broker, tx)
    tee_pubkey = recipient.members(runtime.tee_pubkey)
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
            report_data=_bound(question, tee_pubkey, additional),
            initdata_digest=initdata_digest(document) if document is not None else None,
        ),
        tee_pubkey=tee_pubkey,
        nonce=question.nonce,
        expires=question.expires,
        state=question.state,
        anchors=anchors,
    )


def demand_unspent(broker: Broker, question: Challenge) -> None:
    """`Unauthenticated` for a question that was answered."""
    with broker.store.read() as tx:
        if record.used(tx, [ticket(question.nonce)]):
            raise replay()


def spending(question: Challenge) -> record.Ticket:
    """How a question is recorded as answered, until it expires."""
    return record.Ticket(ticket(question.nonce), int(question.expires * 1000) + 1)


def ticket(nonce: str) -> str:
    """A nonce, or the hash of one that is a whole document."""
    return nonce if len(nonce) <= 64 else hashlib.sha256(nonce.encode()).hexdigest()


def _bound(question: Challenge, tee_pubkey: dict[str, Any], additional: str) -> bytes:
    """What primary evidence must carry: the session's runtime data under the hash of the TEE."""
    name = asking.hash_name(question.tee)
    if name == asking.DEFAULT_HASH:
        return rcar.report_data(question.nonce, tee_pubkey, additional)
    bound = {"additional-evidence": additional, "nonce": question.nonce, "tee-pubkey": tee_pubkey}
    return hashlib.new(name, jcs.canonical(bound)).digest()


def initdata_digest(document: bytes) -> bytes:
    """The digest of a document under the algorithm that it names itself, SHA-256 where it names none.

    One that cannot be read is told so once its evidence was judged (`manifest`): until then it is anybody's.
    """
    name = _algorithm(document[: _MAX_HEAD + 2].partition(b"\n[")[0])
    if name == "sm3":
        return sm3.digest(document)
    if name not in _HASHES:
        raise Malformed(f"initdata: algorithm {' or '.join((*_HASHES, 'sm3'))} is wanted")
    return hashlib.new(name, document).digest()


@lru_cache(maxsize=64)
def _algorithm(head: bytes) -> str:
    try:
        return str(tomllib.loads(head.decode("utf-8")).get("algorithm", "sha256")).lower().replace("-", "")
    except (ValueError, RecursionError):
        return "sha256"


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
    tee = subject.evidence.tee
    case = questions.papers(broker, tee)
    anchored = structs.replace(gathered, anchors=subject.anchors)
    return asking.endorsed(tee, case, anchored, asking.Question(subject.nonce, subject.state))


def verify(subject: Subject, endorsements: Endorsements, now: datetime) -> tuple[Claims, ...]:
    """Step 7: claims of the CPU and of each device beside it, all or none; or every rule that evidence broke."""
    bound = composite.device_request(subject.nonce, subject.tee_pubkey)
    return composite.verify_all(subject.evidence, endorsements, subject.request, now, device=bound)


def manifest(subject: Subject) -> tuple[Manifest | None, str | None]:
    """The manifest in the attested initdata and its digest; None when a guest brought none, as CoCo's guests do."""
    document = subject.evidence.initdata
    if document is None:
        return None, None
    return _brought(document) if len(document) <= _SMALL else _brought.__wrapped__(document)


def told(subject: Subject) -> dict[str, Any] | None:
    """What the attested initdata says (`init_data_claims`); nobody may change it."""
    document = subject.evidence.initdata
    if document is None or len(document) > _SMALL:
        return initclaims.claims(document)
    return _said(document)


_said = lru_cache(maxsize=128)(initclaims.claims)


@lru_cache(maxsize=128)
def _brought(document: bytes) -> tuple[Manifest | None, str | None]:
    """All guests of a release bring the same document; what cannot be read is read again each time."""
    demand_plain(document)
    found = initdata.parse(document).manifest if _has_manifest(document) else None
    return found, found.digest if found is not None else None


def demand_plain(document: bytes) -> None:
    """`Malformed` for a document that takes long to read, or says more than is kept."""
    if len(document) > MAX_CLAIMED and initdata.ENTRY.encode() not in document:
        raise Malformed(f"initdata: at most {MAX_CLAIMED} bytes are allowed without a manifest")
    if structure.size(document) > MAX_STRUCTURE:
        hint = "strings do not count; put what is long into one"
        raise Malformed(f"initdata: at most {MAX_STRUCTURE} bytes of names, tables and numbers are allowed", hint=hint)


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
    return bounded(said.init_data.body)


def bounded(text: str) -> bytes:
    """An initdata document as it is hashed: its bytes, at most 4 MiB."""
    document = text.encode("utf-8", "surrogatepass")
    if len(document) > initdata.MAX_DOCUMENT:
        raise Malformed(f"init-data: at most {initdata.MAX_DOCUMENT} bytes are allowed")
    return document


def _has_manifest(document: bytes) -> bool:
    try:
        data = tomllib.loads(document.decode("utf-8")).get("data")
    except (ValueError, RecursionError) as error:
        raise Malformed("initdata: not TOML") from error
    found = isinstance(data, dict) and initdata.ENTRY in data
    if not found and len(document) > MAX_CLAIMED:
        raise Malformed(f"initdata: at most {MAX_CLAIMED} bytes are allowed without a manifest")
    return found
