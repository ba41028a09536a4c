"""CoMID (draft-ietf-rats-corim section 5): reference-value triples to references.

A triple is an environment and measurements. Measurements of one key are alternatives; all keys of a triple must hold.
What narrows a triple (an instance, a group) becomes its scope. What cannot be compared (masks, ranges, flags, a demand
for a certain authority) is a failed rule: a constraint that is skipped would accept what the signer refused.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from casemate.errors import Malformed
from casemate.policy.references import corim_profiles, rules
from casemate.schema.reference import AtLeast, OneOf, Reference
from casemate.wire import cbor

LIMIT = 512 << 10
MAX_MEASUREMENTS = 512
TAG_UUID, TAG_OID, TAG_UEID, TAG_SVN, TAG_MIN_SVN, TAG_BYTES, TAG_IMPLEMENTATION = 37, 111, 550, 552, 553, 560, 600
_SIZES = {1: 32, 7: 48, 8: 64, "sha-256": 32, "sha-384": 48, "sha-512": 64, -16: 32, -43: 48, -44: 64}
_CLASS = ("class-id", "vendor", "model", "layer", "index")
_REFERENCE_TRIPLES, _SVN, _DIGESTS, _RAW, _REGISTERS = 0, 1, 2, 4, 14
# Members of measurement-values-map that describe and do not constrain a measured value.
_DESCRIBING = {0, 11, 13}  # version, name, cryptokeys (profiles say what those mean)


@dataclass(frozen=True)
class Context:
    """What the manifest around says of every triple."""

    manifest: str
    signer: str
    issued: datetime | None
    expires: datetime | None
    profile: str
    known: corim_profiles.Profile | None
    entities: tuple[str, ...] = ()


@dataclass
class _Values:
    """Registers of one triple while they are gathered."""

    registers: dict[str, OneOf | AtLeast] = field(default_factory=dict)

    def allow(self, register: str, *values: str) -> None:
        known = self.registers.get(register, OneOf(()))
        if not isinstance(known, OneOf):
            raise Malformed(f"CoMID: register {register} has both a least version and a value")
        self.registers[register] = OneOf(tuple(dict.fromkeys((*known.values, *values))))

    def demand(self, register: str, least: int) -> None:
        if register in self.registers:
            raise Malformed(f"CoMID: register {register} has both a least version and a value")
        self.registers[register] = AtLeast(least)


def read(data: bytes, context: Context, reading: rules.Reading) -> None:
    """Add the references of one CoMID tag and the rules about them."""
    item = cbor.loads(data, "CoMID", limit=LIMIT)
    triples = item.get(4) if isinstance(item, dict) else None
    identity = item.get(1) if isinstance(item, dict) else None
    if not isinstance(triples, dict) or not isinstance(identity, dict):
        raise Malformed("CoMID: a tag identity and triples are wanted")
    text(identity.get(0), "CoMID id")
    entities(item.get(2), "CoMID")
    found = triples.get(_REFERENCE_TRIPLES, [])
    if not isinstance(found, list) or len(found) > rules.MAX_REFERENCES:
        raise Malformed(f"CoMID: at most {rules.MAX_REFERENCES} reference triples")
    if context.known is not None:
        reading.extend(context.known.judge(triples))
    for triple in found:
        reading.references.append(_triple(triple, context, reading))


def _triple(triple: Any, context: Context, reading: rules.Reading) -> Reference:
    if not isinstance(triple, list) or len(triple) != 2 or [type(part) for part in triple] != [dict, list]:
        raise Malformed("CoMID: a reference triple is an environment and measurements")
    environment, scope = _environment(triple[0])
    if not 1 <= len(triple[1]) <= MAX_MEASUREMENTS:
        raise Malformed(f"CoMID: 1 to {MAX_MEASUREMENTS} measurements in a triple")
    values = _Values()
    for measurement in triple[1]:
        _measurement(measurement, values, context, reading)
    if len(values.registers) > rules.MAX_REGISTERS:
        raise Malformed(f"CoMID: at most {rules.MAX_REGISTERS} registers in a triple")
    tee = context.known.tee if context.known else reading.trust.scope.get("tee", "")
    extra = {"profile": context.profile} if context.profile else {}
    extra |= {"entities": ", ".join(context.entities)} if context.entities else {}
    return Reference(
        name=context.manifest[:128], format="corim", tee=tee, registers=values.registers, signer=context.signer,
        issued=context.issued, expires=context.expires, scope=scope | ({"tee": tee} if tee else {}),
        environment=environment | extra,
    )  # fmt: skip


def _environment(item: dict[Any, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """(what describes it, what narrows it): environment-map has 0 class, 1 instance, 2 group."""
    if not item or set(item) - {0, 1, 2} or not isinstance(item.get(0, {}), dict):
        raise Malformed("CoMID: an environment is a map of class, instance, group")
    described = {}
    for label, value in item.get(0, {}).items():
        if label not in range(len(_CLASS)):
            raise Malformed("CoMID: a class with an unknown member")
        described[_CLASS[label]] = text(value, f"CoMID {_CLASS[label]}")
    members = [(label, name) for label, name in ((1, "instance"), (2, "group")) if label in item]
    narrowed = {name: text(item[label], f"CoMID {name}") for label, name in members}
    return described, narrowed


def _measurement(item: Any, values: _Values, context: Context, reading: rules.Reading) -> None:
    """One measurement-map: 0 key, 1 values, 2 authorized-by."""
    found = item.get(1) if isinstance(item, dict) else None
    if not isinstance(found, dict) or not found or set(item) - {0, 1, 2}:
        raise Malformed("CoMID: a measurement is a key and values")
    register = corim_profiles.register(text(item[0], "CoMID key") if 0 in item else "measurement", found)
    compared = {_SVN, _DIGESTS, _RAW, _REGISTERS}
    unknown = [str(label) for label in found if label not in compared | _DESCRIBING]
    unknown += ["authorized-by"] if 2 in item else []
    if context.profile and context.known is None:  # a relying party that named the profile answers for its extensions
        unknown = [label for label in unknown if not label.startswith("-")]
    if unknown:
        hint = "these values hold a constraint that cannot be compared here; ask for plain digests"
        reading.add("reference.corim.values", "digests, versions, raw values", ", ".join(unknown), hint, ok=False)
    if not compared & set(found):
        raise Malformed("CoMID: a measurement without a value that could be compared")
    if _DIGESTS in found:
        values.allow(register, *_digests(found[_DIGESTS], register, reading))
    if _RAW in found:
        values.allow(register if _DIGESTS not in found else f"{register}.raw", _raw(found[_RAW]))
    if _SVN in found:
        _svn(found[_SVN], register if not {_DIGESTS, _RAW} & set(found) else f"{register}.svn", values)
    if _REGISTERS in found:
        _integrity(found[_REGISTERS], register if 0 in item else "register", values, reading)


def _digests(found: Any, register: str, reading: rules.Reading) -> list[str]:
    if not isinstance(found, list) or not 1 <= len(found) <= 16:
        raise Malformed("CoMID: 1 to 16 digests are wanted")
    digests = []
    for digest in found:
        if not isinstance(digest, list) or len(digest) != 2 or not isinstance(digest[1], bytes):
            raise Malformed("CoMID: a digest is an algorithm and bytes")
        algorithm, value = digest
        size = _SIZES.get(algorithm) if isinstance(algorithm, int | str) else None
        if size != len(value):
            hint = "only SHA-256, SHA-384 and SHA-512 are believed"
            wanted = f"{size} bytes" if size else "a known algorithm"
            reading.add("reference.corim.digest", wanted, f"{register}: {len(value)} bytes", hint, ok=False)
        digests.append(value.hex())
    return digests


def _raw(found: Any) -> str:
    if isinstance(found, cbor.Tagged) and found.tag == TAG_BYTES and isinstance(found.value, bytes):
        return found.value.hex()
    raise Malformed("CoMID: a raw value that is not tagged bytes (masks cannot be compared)")


def _svn(found: Any, register: str, values: _Values) -> None:
    tag, number = (found.tag, found.value) if isinstance(found, cbor.Tagged) else (TAG_SVN, found)
    if isinstance(number, bool) or not isinstance(number, int) or number < 0 or tag not in (TAG_SVN, TAG_MIN_SVN):
        raise Malformed("CoMID: a security version that is no number")
    if tag == TAG_MIN_SVN:
        values.demand(register, number)
    else:
        values.allow(register, str(number))


def _integrity(found: Any, prefix: str, values: _Values, reading: rules.Reading) -> None:
    """integrity-registers: name or number to digests; `rtmr` and 1 make `rtmr1`."""
    if not isinstance(found, dict) or not 1 <= len(found) <= 64:
        raise Malformed("CoMID: integrity registers are a map of digests")
    for name, digests in found.items():
        if not isinstance(name, str | int) or len(str(name)) > 64:
            raise Malformed("CoMID: an integrity register's name is a text or a number")
        register = name if isinstance(name, str) else f"{prefix}{name}"
        values.allow(register, *_digests(digests, register, reading))


def entities(found: Any, name: str) -> tuple[str, ...]:
    """The names in an entity map (0 name, 1 URI, 2 roles); `Malformed` where one has no name or no role."""
    if found is None:
        return ()
    if not isinstance(found, list) or not 1 <= len(found) <= 16:
        raise Malformed(f"{name}: 1 to 16 entities are wanted")
    names = []
    for item in found:
        roles = item.get(2) if isinstance(item, dict) else None
        if not isinstance(roles, list) or not roles or not all(isinstance(r, int) for r in roles):
            raise Malformed(f"{name}: an entity without roles")
        names.append(text(item.get(0), f"{name} entity")[:128])
    return tuple(names)


def text(value: Any, name: str, *, oid: bool = False) -> str:
    """A short printable form of an identifier: text, number, UUID, OID, tagged bytes (hex)."""
    tag, inner = (value.tag, value.value) if isinstance(value, cbor.Tagged) else (None, value)
    if tag is None and isinstance(inner, bool | type(None)):
        raise Malformed(f"{name}: absent, or of the wrong kind")
    if isinstance(inner, str) and 1 <= len(inner) <= 512 and tag in (None, 32):
        return inner
    if isinstance(inner, int) and tag in (None, 551):
        return str(inner)
    if isinstance(inner, bytes) and 1 <= len(inner) <= 128:
        if tag == TAG_OID or (oid and tag is None):
            return _oid(inner)
        if (tag == TAG_UUID or tag is None) and len(inner) == 16:
            return str(uuid.UUID(bytes=inner))
        if tag in (TAG_BYTES, TAG_UEID, TAG_IMPLEMENTATION, None):
            return inner.hex()
    raise Malformed(f"{name}: an identifier of an unknown kind")


def _oid(content: bytes) -> str:
    from casemate.crypto import der

    return der.Element(der.OID, content).oid()
