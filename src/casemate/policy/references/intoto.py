"""in-toto Statements v1 and v0.1 with SLSA provenance v1 and v0.2: who built what.

A subject named `urn:casemate:measurement:<tee>:<register>`, or one that the relying party's `subjects` maps to a
register, becomes a register of a reference; every other subject becomes an artefact (a container image, a file).
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from casemate.errors import Malformed
from casemate.policy.references import dsse, rules
from casemate.policy.references.trust import SLSA_V02, SLSA_V1, ReferenceTrust
from casemate.schema.reference import AtLeast, OneOf, Reference
from casemate.wire import jcs

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENTS = ("https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1")
MEASUREMENT = "urn:casemate:measurement:"
_SIZES = {"sha256": 64, "sha384": 96, "sha512": 128}
_REGISTER = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_LOWER_HEX = re.compile(r"[0-9a-f]+")


def read(envelope: dsse.Envelope, reading: rules.Reading) -> None:
    """A statement in a DSSE envelope."""
    signers = dsse.verify(envelope, reading)
    name = ", ".join(rules.key_id(spki) for spki in signers)
    statement(jcs.parse_object(envelope.payload, "in-toto statement"), name, reading)


def unsigned(document: dict[str, Any], reading: rules.Reading) -> None:
    """A bare statement."""
    reading.unsigned()
    statement(document, "", reading)


def statement(
    document: dict[str, Any], signer: str, reading: rules.Reading,
    *, logged: datetime | None = None,
) -> None:  # fmt: skip
    """The references of a statement, and the rules about its predicate, builder, time and scope.

    `logged` is when a log saw it, for predicates that name no time themselves.
    """
    trust = reading.trust
    if document.get("_type") not in STATEMENTS:
        raise Malformed("in-toto statement: neither v1 nor v0.1")
    kind, predicate = document.get("predicateType"), document.get("predicate", {})
    if not isinstance(kind, str) or not kind or not isinstance(predicate, dict):
        raise Malformed("in-toto statement: no predicateType, or a predicate that is no object")
    hint = "name the predicate type if you believe its signer about it"
    wanted = " or ".join(sorted(trust.predicate_types)) or "none"
    reading.add("reference.predicate", wanted, kind, hint, ok=kind in trust.predicate_types)
    builder = _builder(kind, predicate)
    if trust.builders:
        hint = "name this builder if you believe it"
        wanted = " or ".join(sorted(trust.builders))
        reading.add("reference.builder", wanted, builder or "none", hint, ok=builder in trust.builders)
    issued = _finished(kind, predicate) or logged
    reading.times(issued=issued, expires=None)
    environment = {"predicate": kind[:256]} | ({"builder": builder[:256]} if builder else {})
    registers, artefacts = _subjects(document.get("subject"), trust)
    for tee, values in registers.items():
        reading.references.append(
            Reference(name=f"{tee or 'measurement'} by {builder or 'its signer'}"[:128], format="in-toto", tee=tee,
                      registers=values, signer=signer, issued=issued, environment=environment,
                      scope={"tee": tee} if tee else {})
        )  # fmt: skip
    if artefacts:
        first = next(iter(artefacts))
        reading.references.append(
            Reference(name=first[:128], format="in-toto", artefacts=artefacts, signer=signer, issued=issued,
                      environment=environment)
        )  # fmt: skip
    reading.settle()


def _subjects(
    subjects: Any, trust: ReferenceTrust
) -> tuple[dict[str, dict[str, OneOf | AtLeast]], dict[str, OneOf]]:  # fmt: skip
    """(TEE to its registers, artefact's name to its digests)."""
    if not isinstance(subjects, list) or not 1 <= len(subjects) <= rules.MAX_REGISTERS:
        raise Malformed(f"in-toto statement: 1 to {rules.MAX_REGISTERS} subjects are wanted")
    registers: dict[str, dict[str, OneOf | AtLeast]] = {}
    artefacts: dict[str, OneOf] = {}
    for position, subject in enumerate(subjects):
        name, digests = _subject(subject, position)
        place = _register(name, trust)
        if place is None:
            known = artefacts.get(name, OneOf(())).values
            artefacts[name] = OneOf((*known, *(f"{algorithm}:{value}" for algorithm, value in digests.items())))
            continue
        tee, register = place
        if register in registers.setdefault(tee, {}):
            raise Malformed(f"in-toto statement: register {register} given twice")
        registers[tee][register] = OneOf(tuple(digests.values()))
    return registers, artefacts


def _register(name: str, trust: ReferenceTrust) -> tuple[str, str] | None:
    if name in trust.subjects:
        return trust.scope.get("tee", ""), trust.subjects[name]
    if not name.startswith(MEASUREMENT):
        return None
    tee, _, register = name.removeprefix(MEASUREMENT).partition(":")
    if not _REGISTER.fullmatch(tee) or not _REGISTER.fullmatch(register):
        raise Malformed("in-toto statement: a measurement's subject is urn:casemate:measurement:<tee>:<register>")
    return tee, register


def _subject(subject: Any, position: int) -> tuple[str, dict[str, str]]:
    """(name, its digests in algorithms that are believed): at least one; weak ones beside it are not looked at."""
    where = f"in-toto subject {position}"
    digests = subject.get("digest") if isinstance(subject, dict) else None
    if not isinstance(digests, dict) or not 1 <= len(digests) <= 16:
        raise Malformed(f"{where}: no digest")
    name = subject.get("name") or subject.get("uri") or f"subject {position}"
    if not isinstance(name, str) or len(name) > 1024:
        raise Malformed(f"{where}: a name that is not a text")
    found = {}
    for algorithm, size in _SIZES.items():
        if algorithm in digests:
            value = digests[algorithm]
            if not isinstance(value, str) or len(value) != size or not _LOWER_HEX.fullmatch(value):
                raise Malformed(f"{where}: {algorithm} is not {size} lower-case hex digits")
            found[algorithm] = value
    if not found:
        raise Malformed(f"{where}: none of " + ", ".join(_SIZES))
    return name, found


def _at(predicate: Any, *path: str) -> Any:
    for name in path:
        predicate = predicate.get(name) if isinstance(predicate, dict) else None
    return predicate


def _builder(kind: str, predicate: dict[str, Any]) -> str:
    path = {SLSA_V1: ("runDetails", "builder", "id"), SLSA_V02: ("builder", "id")}.get(kind)
    found = _at(predicate, *path) if path else ""
    if path and (not isinstance(found, str) or not found):
        raise Malformed("SLSA provenance: no builder id")
    return str(found)


def _finished(kind: str, predicate: dict[str, Any]) -> datetime | None:
    path = {SLSA_V1: ("runDetails", "metadata", "finishedOn"), SLSA_V02: ("metadata", "buildFinishedOn")}.get(kind)
    found = _at(predicate, *path) if path else None
    return rules.parse_time(found, "SLSA provenance: end of the build") if found is not None else None
