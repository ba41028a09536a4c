"""CoRIM (draft-ietf-rats-corim), unsigned (CBOR tag 501) or in a COSE_Sign1: who manifests what, and for how long.

Read are the reference-value triples of its CoMID tags (`comid`). Validity stands in the manifest, in the signature's
metadata and in its CWT claims: all that are there must hold. A profile changes what values mean, so one whose rules are
not known here is refused unless the relying party names it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from casemate.crypto import chain, cose, signatures
from casemate.errors import Malformed
from casemate.policy.references import comid, corim_profiles, rules
from casemate.wire import cbor

CONTENT_TYPES = ("application/rim+cbor", "application/corim-unsigned+cbor")
TAG_CORIM, TAG_COSWID, TAG_COMID, TAG_COTL, TAG_TIME, TAG_URI, TAG_UUID, TAG_OID = 501, 505, 506, 508, 1, 32, 37, 111
LIMIT = 1 << 20
MAX_TAGS = 64
_ID, _TAGS, _DEPENDENT, _PROFILE, _VALIDITY, _ENTITIES = range(6)
_META, _X5CHAIN, _CWT = 8, 33, 15


@dataclass(frozen=True)
class Window:
    """From when, and until when; None where that is not said."""

    begins: datetime | None = None
    ends: datetime | None = None

    def within(self, other: Window) -> Window:
        """What both allow."""
        begins = [w for w in (self.begins, other.begins) if w is not None]
        ends = [w for w in (self.ends, other.ends) if w is not None]
        return Window(max(begins, default=None), min(ends, default=None))


def unsigned(data: bytes, reading: rules.Reading) -> None:
    """A bare manifest."""
    reading.unsigned()
    _manifest(data, "", Window(), reading)


def signed(message: cose.Sign1, reading: rules.Reading) -> None:
    """A manifest in a COSE_Sign1: by a named key, or by a chain to a named authority."""
    metadata, stated = _metadata(message), _claims(message)
    if metadata is None and stated is None:
        raise Malformed("signed CoRIM: neither metadata nor CWT claims in the protected header")
    signer = _signer(message, reading)
    reading.signer(signer)
    window = (metadata or Window()).within(stated or Window())
    _manifest(message.payload, signer, window, reading)


def _signer(message: cose.Sign1, reading: rules.Reading) -> str:
    """The key that signed: a named one, or that of a certificate below a named authority; "" for anybody else."""
    algorithm = signatures.COSE.get(message.algorithm or 0, "")
    covered = cose.signed_bytes(message.protected, message.payload)
    for spki, key in reading.candidates():
        if signatures.verify_jose(key, algorithm, message.signature, covered):
            return rules.key_id(spki)
    leaf = _chained(message, reading)
    if leaf and signatures.verify_jose(signatures.load(leaf), algorithm, message.signature, covered):
        return rules.key_id(leaf)
    return ""


def _chained(message: cose.Sign1, reading: rules.Reading) -> bytes:
    """The leaf's key of a protected x5chain (RFC 9360) that leads to a named authority; empty where none does."""
    roots = [der for der in reading.trust.certificates if (item := chain.load(der)).ca is not None and item.ca.ca]
    given = message.headers.get(_X5CHAIN)
    if given is None or not roots:
        return b""
    certificates = [given] if isinstance(given, bytes) else given
    if not isinstance(certificates, list) or not 1 <= len(certificates) <= chain.MAX_LENGTH:
        raise Malformed("signed CoRIM: an x5chain that is no chain")
    if not all(isinstance(der, bytes) for der in certificates):
        raise Malformed("signed CoRIM: an x5chain that is no chain")
    leaf = chain.load(certificates[0], "signer's certificate")
    for der in certificates[1:]:
        chain.load(der, "signer's certificate")
    path = chain.walk(certificates, roots, reading.now, rule="reference.signer", leaf_usages=None)
    return leaf.key if reading.extend(path.findings) else b""


def _metadata(message: cose.Sign1) -> Window | None:
    """corim-meta: the signer's name and URI, and the validity of the signature."""
    found = message.headers.get(_META)
    if found is None:
        return None
    if not isinstance(found, bytes):
        raise Malformed("signed CoRIM: metadata that are no byte string")
    item = cbor.loads(found, "CoRIM metadata", limit=16 << 10)
    who = item.get(0) if isinstance(item, dict) else None
    if not isinstance(who, dict) or not isinstance(who.get(0), str):
        raise Malformed("signed CoRIM: metadata without a signer's name")
    return _validity(item.get(1), "CoRIM metadata")


def _claims(message: cose.Sign1) -> Window | None:
    """CWT claims (RFC 8392, in the header by RFC 9597): 4 expires, 5 not before."""
    found = message.headers.get(_CWT)
    if found is None:
        return None
    if not isinstance(found, dict):
        raise Malformed("signed CoRIM: CWT claims that are no map")
    ends, begins = (_time(found.get(label), "CWT claim") for label in (4, 5))
    return Window(begins, ends)


def _manifest(data: bytes, signer: str, window: Window, reading: rules.Reading) -> None:
    item = cbor.loads(data, "CoRIM", limit=LIMIT)
    if not isinstance(item, cbor.Tagged) or item.tag != TAG_CORIM or not isinstance(item.value, dict):
        raise Malformed("CoRIM: tag 501 around a map is wanted")
    found: dict[Any, Any] = item.value
    identity, tags = comid.text(found.get(_ID), "CoRIM id"), found.get(_TAGS)
    if not isinstance(tags, list) or not 1 <= len(tags) <= MAX_TAGS:
        raise Malformed(f"CoRIM: 1 to {MAX_TAGS} tags are wanted")
    window = window.within(_validity(found.get(_VALIDITY), "CoRIM"))
    reading.times(issued=None, begins=window.begins, expires=window.ends)
    profile = _profile(found.get(_PROFILE))
    known = corim_profiles.KNOWN.get(profile)
    if profile:
        accepted = known is not None or profile in reading.trust.profiles
        hint = "a profile changes what values mean: name it if you know that it does not change these"
        wanted = "a profile whose rules are known here"
        reading.add("reference.profile", wanted, profile, hint, ok=accepted)
    if _DEPENDENT in found:
        hint = "ask for a manifest that stands alone: dependent manifests are not fetched"
        reading.add("reference.dependent", "a manifest that stands alone", "dependent manifests", hint, ok=False)
    made = comid.Context(
        manifest=identity, signer=signer, issued=window.begins, expires=window.ends, profile=profile, known=known,
        entities=comid.entities(found.get(_ENTITIES), "CoRIM"),
    )  # fmt: skip
    for tag in tags:
        if not isinstance(tag, cbor.Tagged) or not isinstance(tag.value, bytes):
            raise Malformed("CoRIM: a tag that is no tagged byte string")
        if tag.tag == TAG_COMID:
            comid.read(tag.value, made, reading)
        elif tag.tag not in (TAG_COSWID, TAG_COTL):  # lists of software and of tags say nothing of measurements
            raise Malformed(f"CoRIM: tag {tag.tag} is not known")
    reading.settle()


def _profile(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, cbor.Tagged) and value.tag == TAG_URI and isinstance(value.value, str) and value.value:
        return value.value[:512]
    return comid.text(value, "CoRIM profile", oid=True)


def _validity(value: Any, name: str) -> Window:
    """validity-map: 0 not before (optional), 1 not after."""
    if value is None:
        return Window()
    if not isinstance(value, dict) or set(value) - {0, 1} or 1 not in value:
        raise Malformed(f"{name}: validity is a map of not-before and not-after")
    begins, ends = (_time(value.get(label), name, tagged=True) for label in (0, 1))
    return Window(begins, ends)


def _time(value: Any, name: str, *, tagged: bool = False) -> datetime | None:
    if value is None:
        return None
    if isinstance(value, cbor.Tagged) and value.tag == TAG_TIME:
        value = value.value
    elif tagged:
        raise Malformed(f"{name}: a time without its tag")
    return rules.epoch(value, name).astimezone(UTC)
