"""Tiles and signed notes: the forms of the specifications, and input that breaks them."""

from __future__ import annotations

import contextlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from casemate.errors import Malformed, Refused
from casemate.ledger import note, tiles

# The example of the signed-note documentation of another implementation.
VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
NOTE = (
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n"
    "\u2014 PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)


@pytest.mark.parametrize(
    ("level", "index", "width", "path"),
    [
        (0, 0, 256, "tile/0/000"),
        (1, 5, 12, "tile/1/005.p/12"),
        (0, 1234067, 256, "tile/0/x001/x234/067"),
        (None, 1000, 1, "tile/entries/x001/000.p/1"),
    ],
)
def test_paths(level: int | None, index: int, width: int, path: str) -> None:
    assert tiles.path(level, index, width) == path
    assert tiles.parse_path(path.removeprefix("tile/")) == (level, index, width)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "8/000",
        "0/0",
        "0/000.p/0",
        "0/000.p/257",
        "0/x000/001",
        "0/000/",
        "0/\u0660\u0660\u0660",
        "0/000.p/256",
    ],
)
def test_other_paths_are_malformed(text: str) -> None:
    with pytest.raises(Malformed):
        tiles.parse_path(text)


@given(st.lists(st.binary(max_size=300), max_size=256))
def test_bundles_come_back(entries: list[bytes]) -> None:
    assert tiles.unbundle(tiles.bundle(entries)) == entries


@given(st.binary(max_size=600))
def test_any_bytes_are_a_bundle_or_malformed(data: bytes) -> None:
    with contextlib.suppress(Malformed):
        assert tiles.bundle(tiles.unbundle(data)) == data


def test_the_published_note_opens() -> None:
    key = note.Verifier.parse(VKEY)
    assert key.text() == VKEY
    text, signers = note.open_note(NOTE, (key,))
    assert text.endswith("problem is.\n")
    assert signers == (key,)


def test_a_changed_note_or_another_key_is_refused() -> None:
    key = note.Verifier.parse(VKEY)
    for changed in (NOTE.replace("answer", "question"), NOTE.replace("x08go/ZJ", "x08go/ZK")):
        with pytest.raises(Refused):
            note.open_note(changed, (key,))
    with pytest.raises(Refused):
        note.open_note(NOTE, (note.Verifier("PeterNeumann", bytes(32)),))
    with pytest.raises(Malformed):
        note.Verifier.parse(VKEY.replace("c74f20a3", "c74f20a4"))


def test_a_checkpoint_is_signed_and_read() -> None:
    private = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    public = private.public_key().public_bytes_raw()
    point = note.Checkpoint("log.example/casemate", 20852163, bytes(range(32)), ("extension line",))
    signed = note.sign(point.text(), "log.example/casemate", public, private.sign(point.text().encode()))
    text, _ = note.open_note(signed, (note.Verifier("log.example/casemate", public),))
    assert note.parse_checkpoint(text) == point


@pytest.mark.parametrize("size", ["-1", "01", "1.0", "\u0661", "9" * 20, ""])
def test_a_checkpoint_with_another_size_is_malformed(size: str) -> None:
    good = note.Checkpoint("o", 1, bytes(32)).text()
    with pytest.raises(Malformed):
        note.parse_checkpoint(good.replace("\n1\n", f"\n{size}\n"))


@given(st.text(max_size=300))
def test_any_text_is_a_note_or_malformed(text: str) -> None:
    key = note.Verifier.parse(VKEY)
    for found in (text, NOTE + text, NOTE[:-9] + text):
        with contextlib.suppress(Malformed, Refused):
            note.open_note(found, (key,))
        with contextlib.suppress(Malformed):
            note.parse_checkpoint(found)
