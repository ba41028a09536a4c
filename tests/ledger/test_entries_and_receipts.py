"""Entries, key histories and receipts: what is opened is what was committed to, and changes are found."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
from dataclasses import replace

import pytest
import rfc8785
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from casemate.errors import Malformed, Refused
from casemate.ledger import entry, history, merkle, note, receipt
from casemate.wire import jcs
from casemate.wire.encoding import b64, b64u

ORIGIN = "log.example/one"
SALT = bytes(range(32))
NOON = 1_795_262_400_000
FIELDS = {"id": "0" * 32, "app": "sha256:" + "a" * 64, "version": 3, "passed": ["a.b", "c\u00e9\U0001f600"], "x": None}

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


class Signer:
    def __init__(self) -> None:
        self.key = Ed25519PrivateKey.generate()
        raw = self.key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        self.verifier = note.Verifier(ORIGIN, raw)

    def note(self, checkpoint: note.Checkpoint) -> str:
        text = checkpoint.text()
        return note.sign(text, ORIGIN, self.verifier.public, self.key.sign(text.encode()))


SIGNER, LATER = Signer(), Signer()
LOG = history.History(ORIGIN, (history.Key(SIGNER.verifier, NOON - 1000),))


def made(signer: Signer = SIGNER, *, time: int = NOON, origin: str = ORIGIN, size: int = 11) -> receipt.Receipt:
    data = entry.make("release", time, True, FIELDS, SALT)
    leaves = [merkle.leaf(os.urandom(4)) for _ in range(size)]
    leaves[5] = merkle.leaf(data)

    def node(level: int, index: int) -> bytes:
        return merkle.complete(leaves[index << level : (index + 1) << level])

    openings = {k: receipt.Opening(entry.field_salt(SALT, k), v) for k, v in FIELDS.items() if v is not None}
    checkpoint = note.Checkpoint(origin, size, merkle.root(size, node))
    proof = tuple(merkle.inclusion(5, size, node))
    return receipt.Receipt("0" * 32, data, 5, openings, proof, signer.note(checkpoint))


def test_an_entry_tells_nothing_but_kind_time_and_outcome() -> None:
    data = entry.make("release", NOON, True, FIELDS, SALT)
    document = json.loads(data)
    assert document.keys() == {"allowed", "c", "kind", "time", "v"}
    assert document["c"].keys() == {"id", "app", "version", "passed"}
    assert all(len(value) == 43 for value in document["c"].values())
    assert entry.make("release", NOON, True, FIELDS, bytes(32)) != data
    found = entry.parse(data)
    assert (found.kind, found.time, found.allowed) == ("release", NOON, True)


def test_a_field_opens_with_its_own_salt_alone() -> None:
    found = entry.parse(entry.make("release", NOON, True, FIELDS, SALT))
    salt = entry.field_salt(SALT, "version")
    assert found.opens("version", salt, 3)
    assert not found.opens("version", salt, 4)
    assert not found.opens("version", salt, "3")
    assert not found.opens("app", salt, 3)
    assert not found.opens("nothing", salt, 3)
    assert not found.opens("version", SALT, 3)


def test_the_vector_of_a_commitment() -> None:
    salt = hmac.new(SALT, b"app", "sha256").digest()
    expected = hashlib.sha256(b"casemate log commitment v1\0app\0" + salt + b'"x"').digest()
    assert entry.commitment("app", entry.field_salt(SALT, "app"), "x") == expected


@given(VALUES)
def test_values_are_committed_to_in_their_canonical_form(value: object) -> None:
    assert entry._canonical(value) == rfc8785.dumps(value) == jcs.canonical(value)


@given(st.dictionaries(st.from_regex(r"[a-z][a-z0-9_]{0,9}", fullmatch=True), VALUES, max_size=6), st.binary())
def test_an_entry_is_what_the_libraries_make_of_it(fields: dict[str, object], seed: bytes) -> None:
    salt = hashlib.sha256(seed).digest()
    made = {
        name: b64u(entry.commitment(name, hmac.digest(salt, name.encode(), "sha256"), value))
        for name, value in fields.items()
        if value is not None
    }
    wanted = rfc8785.dumps({"v": 1, "kind": "attest", "time": NOON, "allowed": None, "c": made})
    assert entry.make("attest", NOON, None, fields, salt) == wanted


@given(
    st.dictionaries(st.from_regex(r"[a-z][a-z0-9_]{0,9}", fullmatch=True), VALUES, max_size=6),
    st.none() | st.booleans(),
)
def test_entries_come_back(fields: dict[str, object], allowed: bool | None) -> None:
    found = entry.parse(entry.make("attest", NOON, allowed, fields, SALT))
    assert found.allowed is allowed
    assert found.commitments.keys() == {name for name, value in fields.items() if value is not None}
    assert all(found.opens(k, entry.field_salt(SALT, k), v) for k, v in fields.items() if v is not None)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "Big"},
        {"kind": 1},
        {"time": -1},
        {"time": True},
        {"time": 1.5},
        {"time": 1 << 60},
        {"allowed": 1},
        {"c": []},
        {"c": {"A": "x" * 43}},
        {"c": {"a": "x" * 42}},
        {"c": {"a": 5}},
        {"v": 2},
        {"more": 1},
    ],
)
def test_other_entries_are_malformed(change: dict[str, object]) -> None:
    document = json.loads(entry.make("attest", NOON, True, {"a": 1}, SALT)) | change
    with pytest.raises(Malformed):
        entry.parse(jcs.canonical(document))


def test_an_entry_has_one_form() -> None:
    data = entry.make("attest", NOON, True, {"a": 1}, SALT)
    for other in (data + b" ", data.replace(b":true", b": true"), data.replace(b"attest", b"\\u0061ttest")):
        with pytest.raises(Malformed):
            entry.parse(other)


@pytest.mark.parametrize(
    ("kind", "time", "fields"),
    [
        ("Attest", 1, {}),
        ("a", -1, {}),
        ("a", 1, {"Big": 1}),
        ("a", 1, {"big": "x" * (entry.MAX_VALUE + 1)}),
        ("a", 1, {"half": "\ud800"}),
        ("a", 1, {f"f{i}": 1 for i in range(65)}),
    ],
)
def test_what_is_no_entry_is_not_made(kind: str, time: int, fields: dict[str, object]) -> None:
    with pytest.raises(Malformed):
        entry.make(kind, time, True, fields, SALT)


def test_a_receipt_verifies_offline() -> None:
    one = receipt.parse(json.dumps(made().as_document()).encode())
    found = receipt.verify(one, LOG)
    assert found.fields["app"] == FIELDS["app"]
    assert (found.entry.kind, found.index, found.size) == ("release", 5, 11)
    assert [f.rule for f in found.findings][:4] == ["log.signature", "receipt.log", "receipt.inclusion", "receipt.time"]


def test_what_was_blacked_out_does_not_matter() -> None:
    one = made()
    less = replace(one, openings={"app": one.openings["app"]})
    assert dict(receipt.verify(less, LOG).fields) == {"app": FIELDS["app"]}


def broken() -> list[tuple[str, receipt.Receipt]]:
    one = made()
    bent = replace(one, openings={**one.openings, "app": replace(one.openings["app"], value="sha256:" + "b" * 64)})
    other = entry.make("release", NOON, False, FIELDS, SALT)
    unknown = {**one.openings, "more": receipt.Opening(SALT, 1)}
    return [
        ("receipt.field.app", bent),
        ("receipt.field.more", replace(one, openings=unknown)),
        ("receipt.inclusion", replace(one, index=6)),
        ("receipt.inclusion", replace(one, proof=one.proof[:-1])),
        ("receipt.inclusion", replace(one, proof=())),
        ("receipt.inclusion", replace(one, entry=other)),
        ("receipt.id", replace(one, id="1" * 32)),
        ("receipt.log", made(origin="log.example/two")),
        ("log.signature", replace(one, checkpoint=LATER.note(note.Checkpoint(ORIGIN, 11, bytes(32))))),
        ("log.signature", replace(one, checkpoint=one.checkpoint.replace("\n11\n", "\n12\n"))),
    ]


@pytest.mark.parametrize(("rule", "one"), broken(), ids=lambda v: v if isinstance(v, str) else "")
def test_what_was_changed_is_refused_by_its_rule(rule: str, one: receipt.Receipt) -> None:
    with pytest.raises(Refused) as refusal:
        receipt.verify(one, LOG)
    assert rule in [f.rule for f in refusal.value.findings if not f.ok]


def test_keys_count_for_their_time() -> None:
    changed = history.History(
        ORIGIN, (history.Key(SIGNER.verifier, NOON - 1000, NOON), history.Key(LATER.verifier, NOON))
    )
    receipt.verify(made(time=NOON), changed)  # a receipt of before the change
    receipt.verify(made(LATER, time=NOON - 1), changed)  # an old entry below a new checkpoint
    receipt.verify(made(LATER, time=NOON + 1), changed)
    with pytest.raises(Refused) as refusal:
        receipt.verify(made(time=NOON + 1), changed)  # signed by the key that had ended
    assert [f.rule for f in refusal.value.findings if not f.ok] == ["receipt.time"]


def test_a_history_comes_back() -> None:
    known = history.History(
        ORIGIN, (history.Key(SIGNER.verifier, NOON, NOON + 5), history.Key(LATER.verifier, NOON + 5))
    )
    assert history.parse(json.loads(json.dumps(known.as_document()))) == known


@pytest.mark.parametrize(
    "change",
    [
        {"origin": ""},
        {"origin": "a b"},
        {"keys": []},
        {"keys": ["x"]},
        {"keys": [{"vkey": "x"}]},
        {"keys": [{"vkey": SIGNER.verifier.text(), "begun": "2026-01-01", "ended": None}]},
        {"keys": [{"vkey": SIGNER.verifier.text(), "begun": "2026-01-01T00:00:00Z", "ended": "2025-01-01T00:00:00Z"}]},
        {"keys": [{"vkey": SIGNER.verifier.text(), "begun": 5, "ended": None}]},
    ],
)
def test_other_histories_are_malformed(change: dict[str, object]) -> None:
    with pytest.raises(Malformed):
        history.parse(LOG.as_document() | change)


@given(st.binary(max_size=400))
def test_any_bytes(data: bytes) -> None:
    for parser in (entry.parse, receipt.parse):
        with contextlib.suppress(Malformed):
            parser(data)


@given(
    st.fixed_dictionaries(dict.fromkeys(("version", "id", "entry", "index", "openings", "proof", "checkpoint"), VALUES))
)
def test_any_members(document: dict[str, object]) -> None:
    with contextlib.suppress(Malformed):
        receipt.from_document(document)
    with contextlib.suppress(Malformed):
        history.parse(document)


@given(st.data())
def test_one_change_anywhere_in_a_receipt_is_found(data: st.DataObject) -> None:
    document = GOOD.copy()
    name = data.draw(st.sampled_from(sorted(document)))
    document[name] = data.draw(VALUES.filter(lambda value: value != document[name] and value != {}))
    with contextlib.suppress(Malformed):
        with pytest.raises(Refused):
            receipt.verify(receipt.from_document(document), LOG)


GOOD = made().as_document()


def test_every_bit_of_proof_and_entry_counts() -> None:
    one = made()
    raw = one.as_document()
    for step in range(len(one.proof)):
        bad = list(one.proof)
        bad[step] = bytes([bad[step][0] ^ 1]) + bad[step][1:]
        with pytest.raises(Refused):
            receipt.verify(replace(one, proof=tuple(bad)), LOG)
    for place in range(len(one.entry)):
        bent = one.entry[:place] + bytes([one.entry[place] ^ 1]) + one.entry[place + 1 :]
        with pytest.raises((Refused, Malformed)):
            receipt.verify(receipt.from_document({**raw, "entry": b64(bent)}), LOG)
    for name, opening in one.openings.items():
        salt = b64u(bytes([opening.salt[0] ^ 1]) + opening.salt[1:])
        openings = {**raw["openings"], name: {"salt": salt, "value": opening.value}}
        with pytest.raises(Refused):
            receipt.verify(receipt.from_document({**raw, "openings": openings}), LOG)
