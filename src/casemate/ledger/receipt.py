"""Receipts: one entry of the log, opened, with the proof that it is in the log. Verified offline, and years later.

JSON: ``{"version", "id", "entry", "index", "openings", "proof", "checkpoint"}``: `entry` and the steps of `proof` in
base64, `openings` from field to `{"salt", "value"}` (salt: base64url), `checkpoint` a signed note (C2SP). Fields may be
taken out of `openings` before a receipt is passed on; what is left still verifies.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from casemate.errors import Finding, Malformed, Refused
from casemate.ledger import entry as entries
from casemate.ledger import merkle, note
from casemate.ledger.history import History, text
from casemate.wire import jcs
from casemate.wire.encoding import b64, b64u, unb64, unb64u

VERSION = 1
MAX_RECEIPT = 2 << 20
MAX_PROOF = 64
_ID = re.compile(r"[0-9a-f]{32}")
_MEMBERS = frozenset({"version", "id", "entry", "index", "openings", "proof", "checkpoint"})


@dataclass(frozen=True)
class Opening:
    """A field's salt and value."""

    salt: bytes
    value: Any


@dataclass(frozen=True)
class Receipt:
    """A receipt, read and not yet believed."""

    id: str
    entry: bytes
    index: int
    openings: Mapping[str, Opening]
    proof: tuple[bytes, ...]
    checkpoint: str

    def as_document(self) -> dict[str, Any]:
        """The JSON form that `parse` takes."""
        return {
            "version": VERSION,
            "id": self.id,
            "entry": b64(self.entry),
            "index": self.index,
            "openings": {k: {"salt": b64u(o.salt), "value": o.value} for k, o in self.openings.items()},
            "proof": [b64(step) for step in self.proof],
            "checkpoint": self.checkpoint,
        }


@dataclass(frozen=True)
class Verified:
    """What a receipt proves: the entry, its place, the fields that were opened, and the rules that were applied."""

    entry: entries.Entry
    index: int
    size: int
    fields: Mapping[str, Any]
    findings: tuple[Finding, ...]


def is_id(text: str) -> bool:
    """Whether this has the form of a receipt's id: 32 hex digits."""
    return _ID.fullmatch(text) is not None


def parse(data: bytes) -> Receipt:
    """The receipt in these bytes; `Malformed` names what breaks its form."""
    return from_document(jcs.parse_object(data, "receipt", limit=MAX_RECEIPT))


def from_document(document: Mapping[str, Any]) -> Receipt:
    """The receipt in parsed JSON."""
    if document.keys() != _MEMBERS or isinstance(document["version"], bool) or document["version"] != VERSION:
        raise Malformed(f"receipt: of version {VERSION} are wanted: {', '.join(sorted(_MEMBERS))}")
    number, index, proof = document["id"], document["index"], document["proof"]
    if not isinstance(number, str) or not is_id(number):
        raise Malformed("receipt: `id` has 32 hex digits")
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < merkle.MAX_SIZE:
        raise Malformed("receipt: `index` is a number")
    if not isinstance(proof, list) or len(proof) > MAX_PROOF:
        raise Malformed(f"receipt: `proof` is a list of at most {MAX_PROOF}")
    opened = document["openings"]
    if not isinstance(opened, dict) or len(opened) > entries.MAX_FIELDS:
        raise Malformed(f"receipt: `openings` has at most {entries.MAX_FIELDS} fields")
    return Receipt(
        id=number,
        entry=unb64(_word(document["entry"], "entry"), "receipt: entry"),
        index=index,
        openings={name: _opening(name, value) for name, value in opened.items()},
        proof=tuple(unb64(_word(step, "proof"), "receipt: proof", size=merkle.SIZE) for step in proof),
        checkpoint=_word(document["checkpoint"], "checkpoint"),
    )


def judge(receipt: Receipt, log: History) -> tuple[entries.Entry, int, tuple[Finding, ...]]:
    """The entry, the checkpoint's size, and every rule with its outcome. `Malformed` when the entry is none."""
    entry = entries.parse(receipt.entry)
    try:
        signed, signers = note.open_note(receipt.checkpoint, log.verifiers)
    except Refused as refusal:
        return entry, 0, refusal.findings
    checkpoint = note.parse_checkpoint(signed)
    place = merkle.verify_inclusion(
        merkle.leaf(receipt.entry), receipt.index, checkpoint.size, receipt.proof, checkpoint.root
    )
    ends = [log.key(signer).ended for signer in signers]
    last = None if None in ends else max(end for end in ends if end is not None)
    findings = [
        Finding("log.signature", "a key of the log", f"signed by {signers[0].name}", ok=True),
        _rule("receipt.log", log.origin, checkpoint.origin, "the receipt is of another log"),
        Finding(
            "receipt.inclusion",
            f"a proof for entry {receipt.index} of {checkpoint.size}",
            "it leads to the checkpoint" if place else "it does not lead to the checkpoint",
            "" if place else "the entry was changed or never was in this log",
            ok=place,
        ),
        Finding(
            "receipt.time",
            "a key of that time" if last is None else f"an entry of {text(last)}, when the key ended, or before",
            text(entry.time),
            "" if last is None or entry.time <= last else "a key that had ended signed for this entry",
            ok=last is None or entry.time <= last,
        ),
    ]
    for name, opening in sorted(receipt.openings.items()):
        good = entry.opens(name, opening.salt, opening.value)
        found = "opens" if good else "does not open"
        hint = "" if good else "the value was changed"
        findings.append(Finding(f"receipt.field.{name}"[:100], "what the entry committed to", found, hint, ok=good))
    if "id" in receipt.openings:
        findings.append(_rule("receipt.id", receipt.openings["id"].value, receipt.id, "the receipt's id was changed"))
    return entry, checkpoint.size, tuple(findings)


def verify(receipt: Receipt, log: History) -> Verified:
    """What the receipt proves; `Refused` with every failed rule."""
    entry, size, findings = judge(receipt, log)
    if not all(f.ok for f in findings):
        raise Refused(findings)
    return Verified(entry, receipt.index, size, {k: o.value for k, o in receipt.openings.items()}, findings)


def _rule(rule: str, expected: Any, found: str, hint: str) -> Finding:
    ok = isinstance(expected, str) and expected == found
    return Finding(rule, str(expected)[:200], found[:200], "" if ok else hint, ok=ok)


def _word(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise Malformed(f"receipt: `{name}` is no text")
    return value


def _opening(name: str, value: Any) -> Opening:
    if not isinstance(value, dict) or value.keys() != {"salt", "value"}:
        raise Malformed("receipt: an opening has `salt` and `value`")
    salt = unb64u(_word(value["salt"], "salt"), "receipt: salt", size=entries.SALT_SIZE)
    entries.commitment(name, salt, value["value"])  # bounds of name and value
    return Opening(salt, value["value"])
