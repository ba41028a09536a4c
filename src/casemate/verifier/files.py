"""Judge evidence that lies in files: recognise it, verify it, apply a policy and reference values, tell every rule.

Steps
1. Sort the files by content; every room looks for its own evidence. Where two rooms find some and neither covers the
   other, nothing is guessed: `unusable`, with the names to choose from.
2. The room judges at a given time, offline. Further pieces of evidence of that TEE in the same case must hold too.
3. The policy judges the claims of every piece and device, the reference values those of every piece.

What vouches for a platform is pinned or comes from the relying party (`casemate.verifier.anchors`), never from these
files. Whatever goes wrong in a room is a result too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from traceback import extract_tb

import msgspec

from casemate.errors import CasemateError, Finding, Malformed, Refused, Unavailable, Unusable
from casemate.policy import document, platform
from casemate.schema.claims import Claims
from casemate.schema.endorsements import Anchor, Endorsements
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request
from casemate.tee import ROOMS, composite, gatherer
from casemate.tee.files import Case, File, Gathered, pem_blocks, sort, strings
from casemate.verifier import anchors, reading
from casemate.verifier.anchors import Own
from casemate.verifier.result import ACCEPTED, NOT_FRESH, REFUSED, UNUSABLE, Result
from casemate.wire.encoding import b64

_FETCH = "casemate collateral fetch gets it from the vendor; put it beside the evidence"
_LEAST, _LARGEST_TABLE = 64, 256 << 10  # bytes: papers are looked for in files of rows and tables too
Judge = Callable[[Claims], Iterable[Finding]]


@dataclass(frozen=True)
class Question:
    """What the relying party asks of the evidence.

    `now` is timezone-aware. `report_data` and `initdata` (a document's bytes) are what the evidence must carry.
    `device_report_data` is what every device must carry, where evidence of devices comes along.
    `anchors` are roots to trust beside the pinned ones, `keys` (DER) an attester's or platform's own, for TEEs
    without a chain, `own` both and whatever else a room takes from the relying party. `judges` are further rules on the
    claims (reference values).
    `fetch` reads a collateral store, offline, for what does not lie beside the evidence.
    """

    now: datetime
    tee: str = ""
    report_data: bytes | None = None
    device_report_data: bytes | None = None
    initdata: bytes | None = None
    policy: document.Policy = document.DEFAULT
    anchors: tuple[Anchor, ...] = ()
    keys: tuple[bytes, ...] = ()
    own: Own = field(default_factory=Own)
    judges: tuple[Judge, ...] = field(default=())
    fetch: Callable[[str], bytes] | None = None


def verify_paths(paths: Iterable[Path], question: Question) -> Result:
    """The result for files and folders; never raises for what they hold."""
    try:
        return verify(reading.read(paths), question)
    except Exception as error:  # noqa: BLE001 - a document with a verdict, whatever happens
        return _unusable(error, question)


def verify(files: Sequence[File], question: Question) -> Result:
    """The result for files in memory; never raises for what they hold."""
    tee = question.tee
    try:
        case = sort(files)
        found = choose(case, tee)
        tee = found.evidence.tee
        judged = _judge(found, question)
    except Exception as error:  # noqa: BLE001 - a defect of a room is no verdict on evidence, and no reason to stop
        return _unusable(error, question, tee)
    unused = _unused(case, found)
    note = () if not unused else (f"not used: {', '.join(unused)}",)
    return replace(judged, unused=unused, notes=(*judged.notes, *note))


def choose(case: Case, tee: str = "") -> Gathered:
    """The evidence of the case; `Unusable` where there is none, or more than one kind."""
    if not case.files:
        raise Unusable("there are no files", hint="name files or folders with evidence and its endorsements")
    found, broken = _asked(case, [tee] if tee else list(ROOMS))
    covered = {name for gathered in found.values() for name in gathered.covers}
    chosen = [gathered for name, gathered in found.items() if name not in covered]
    if len(chosen) > 1:
        names = " and ".join(sorted(gathered.evidence.tee for gathered in chosen))
        raise Unusable(f"there is evidence of {names}", hint="name one with --tee")
    if not chosen:
        hint = "name the file with the report, quote, document or token"
        raise broken[0] if broken else Unusable(_nothing(case, tee), hint=hint)
    return _with_devices(chosen[0], case)


def _with_devices(found: Gathered, case: Case) -> Gathered:
    """Evidence of devices may stand beside the CPU's: their rooms look for their own endorsements among the files."""
    given, used = found.endorsements, [*found.used]
    for part in composite.devices(found.evidence):
        alone = msgspec.structs.replace(case, documents=((found.used[0], part.primary),))
        gathered: Gathered | None = gatherer(part.tee)(alone)
        if gathered is not None:
            more = gathered.endorsements
            given = msgspec.structs.replace(
                given,
                certificates=tuple(dict.fromkeys([*given.certificates, *more.certificates])),
                collateral={**more.collateral, **given.collateral},
            )
            used += gathered.used
    return msgspec.structs.replace(found, endorsements=given, used=tuple(dict.fromkeys(used)))


def _asked(case: Case, tees: list[str]) -> tuple[dict[str, Gathered], list[CasemateError]]:
    """What each room finds, and the errors of those that found something broken."""
    found: dict[str, Gathered] = {}
    broken: list[CasemateError] = []
    for tee in tees:
        try:
            gathered: Gathered | None = gatherer(tee)(case)
        except (Malformed, Unusable) as error:
            broken.append(error)
            continue
        if gathered is not None:
            found[tee] = gathered
    return found, broken


def _nothing(case: Case, tee: str) -> str:
    counted = (
        (len(case.certificates), "certificate"), (len(case.crls), "revocation list"), (len(case.keys), "public key"),
        (len(case.documents), "JSON document"), (len(case.blobs), "other file"),
    )  # fmt: skip
    there = ", ".join(f"{n} {what}{'' if n == 1 else 's'}" for n, what in counted if n)
    return f"no file is evidence of {tee or 'a TEE that is known'}: found {there or 'nothing'}"


def _judge(found: Gathered, question: Question) -> Result:
    tee = found.evidence.tee
    base = Result(REFUSED, question.now, tee, used=found.used, notes=_notes(question))
    try:
        claims, *devices = _verify(found, found.evidence, question)
        others = [finding for name, evidence in found.also for finding in _other(found, name, evidence, question)]
    except Refused as refusal:
        return replace(base, checks=_placed(refusal.findings, found.used[0]) if found.also else refusal.findings)
    except Unusable as error:
        if found.missing or found.wanted:
            absent = "; ".join((*found.missing, *found.wanted))
            raise Unusable(f"{tee}: missing: {absent}", hint=error.hint or _FETCH) from error
        raise
    if found.missing and question.fetch is None and not (question.keys or question.own.case.keys):
        raise Unusable(f"{tee}: missing: {'; '.join(found.missing)}", hint=_FETCH)
    findings = [*claims.checks, *_findings(claims, devices, question), *others]
    verdict = ACCEPTED if all(finding.ok for finding in findings) else REFUSED
    return replace(base, verdict=verdict, claims=claims, devices=tuple(devices), checks=tuple(findings))


def _findings(claims: Claims, devices: Sequence[Claims], question: Question) -> list[Finding]:
    """The policy's rules and those of reference values on one piece of evidence and the devices beside it."""
    findings = list(document.judge(claims, question.policy))
    for device in devices:
        findings += [*device.checks, *platform.judge(device, question.policy.platform)]
    for judge in question.judges:
        findings += judge(claims)
    return findings


def _verify(found: Gathered, evidence: Evidence, question: Question) -> tuple[Claims, ...]:
    """Claims of the evidence and of every device whose evidence came along with it."""
    devices = [part.tee for part in composite.devices(evidence)]
    if question.device_report_data is not None and not devices:
        raise Unusable("no evidence of a device came along", hint="leave --device-report-data out")
    given = _stored(found, evidence, question)
    given = msgspec.structs.replace(given, anchors=(*given.anchors, *question.anchors))
    endorsements = anchors.endorse([evidence.tee, *devices], given, question.own, question.keys)
    initdata = question.initdata if question.initdata is not None else evidence.initdata
    request = Request(
        report_data=question.report_data,
        initdata_digest=hashlib.sha256(initdata).digest() if initdata is not None else None,
    )
    device = Request(report_data=question.device_report_data) if question.device_report_data is not None else None
    return composite.verify_all(evidence, endorsements, request, question.now, device=device)


def _stored(found: Gathered, evidence: Evidence, question: Question) -> Endorsements:
    """What lies beside the evidence, and what a store has for it; the store's is a whole, so it fills gaps as a whole.

    A store without it is `Unusable` only where a verification without it is, too.
    """
    given = found.endorsements
    if question.fetch is None:
        return given
    try:
        stored = composite.endorse(evidence, question.fetch)
    except (Unavailable, Unusable):
        if found.missing or not (given.certificates or given.collateral):
            raise
        return given
    ours, theirs = given.collateral, stored.collateral
    return msgspec.structs.replace(
        given,
        certificates=tuple(dict.fromkeys([*given.certificates, *stored.certificates])),
        collateral={**theirs, **ours} if theirs.keys() <= ours.keys() else {**ours, **theirs},
    )


def _other(found: Gathered, name: str, evidence: Evidence, question: Question) -> list[Finding]:
    """The failed rules of a further piece of evidence, with the file that it is in."""
    try:
        claims, *devices = _verify(found, evidence, question)
        failed = [f for f in _findings(claims, devices, question) if not f.ok]
    except Refused as refusal:
        failed = [f for f in refusal.findings if not f.ok]
    except Malformed as error:
        failed = [Finding(f"{evidence.tee}.format", "evidence in its format", str(error))]
    return list(_placed(failed, name))


def _placed(findings: Iterable[Finding], name: str) -> tuple[Finding, ...]:
    """The findings, failed ones with the file that they are about: there is more than one."""
    return tuple(f if f.ok else Finding(f.rule, f.expected, f"{f.found} (in {name})", f.hint) for f in findings)


def _notes(question: Question) -> tuple[str, ...]:
    return () if question.report_data is not None else (NOT_FRESH,)


def _unused(case: Case, found: Gathered) -> tuple[str, ...]:
    """Files of which nothing went into the judgement. Papers (certificates, lists) are found again by their bytes."""
    endorsements = found.endorsements
    taken = {*endorsements.certificates, *endorsements.collateral.values()}
    carried = set(strings([e.primary for e in (found.evidence, *(e for _, e in found.also))]))
    names = []
    for file in case.files:
        if file.name in found.used:
            continue
        one = sort([file])
        inside = [der for _, d in one.documents for text in strings(d) for _, der in pem_blocks(text.encode())]
        papers = (*one.certificates, *one.crls, *one.keys, *inside)
        if any(paper in taken or b64(paper) in carried for paper in papers):
            continue
        if len(file.data) > _LARGEST_TABLE or not any(len(t) >= _LEAST and t in file.data for t in taken):
            names.append(file.name)
    return tuple(names)


def _unusable(error: Exception, question: Question, tee: str = "") -> Result:
    if isinstance(error, Refused):
        return Result(REFUSED, question.now, tee, checks=error.findings, notes=_notes(question))
    if not isinstance(error, CasemateError):
        error = _incident(error)
    return Result(UNUSABLE, question.now, tee, reason=str(error), hint=error.hint, notes=_notes(question))


def _incident(error: Exception) -> Unusable:
    """What a defect may say of itself: its kind and place, never its text, which may hold what it stumbled over."""
    place = extract_tb(error.__traceback__)[-1]
    where = f"{Path(place.filename).parent.name}/{Path(place.filename).name}:{place.lineno}"
    return Unusable(
        f"this evidence could not be judged: a defect of the program ({type(error).__name__} at {where})",
        hint="report it with these words; nothing was decided about the evidence",
    )
