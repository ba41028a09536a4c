"""The transparency log's papers: entries, receipts, signed notes, tiles, key histories."""

from __future__ import annotations

import json
from collections.abc import Iterable

from fuzz.target import One, target

_FIELDS = {"app": "sha256:" + "a" * 64, "version": 3, "passed": ["a.b"]}


def _entry() -> bytes:
    from casemate.ledger import entry

    return entry.make("release", 1_795_262_400_000, True, _FIELDS, bytes(32))


def _entries() -> Iterable[bytes]:
    yield _entry()


@target("log-entry", _entries)
def log_entry() -> One:
    """Entries in their one form."""
    from casemate.ledger import entry

    return entry.parse


def _note() -> str:
    from casemate.ledger import merkle, note

    text = note.Checkpoint("log.example/one", 1, merkle.leaf(_entry())).text()
    return note.sign(text, "log.example/one", bytes(32), bytes(64))


def _receipts() -> Iterable[bytes]:
    from casemate.ledger import entry
    from casemate.ledger.receipt import Opening, Receipt

    openings = {name: Opening(entry.field_salt(bytes(32), name), value) for name, value in _FIELDS.items()}
    yield json.dumps(Receipt("0" * 32, _entry(), 0, openings, (bytes(32),), _note()).as_document()).encode()


@target("receipt", _receipts, errors=("Malformed", "Refused"))
def receipt() -> One:
    """Receipts, parsed and judged; none of a stranger is believed."""
    from casemate.ledger import note, receipt
    from casemate.ledger.history import History, Key

    log = History("log.example/one", (Key(note.Verifier("log.example/one", bytes(32)), 0),))

    def one(data: bytes) -> object:
        return receipt.judge(receipt.parse(data), log)

    return one


def _notes() -> Iterable[bytes]:
    yield _note().encode()


@target("checkpoint", _notes, errors=("Malformed", "Refused"))
def checkpoint() -> One:
    """Signed notes with checkpoints."""
    from casemate.ledger import note

    key = note.Verifier("log.example/one", bytes(32))

    def one(data: bytes) -> object:
        text = data.decode("utf-8", "replace")
        note.parse_checkpoint(note.split(text)[0])
        return note.open_note(text, (key,))

    return one


def _bundles() -> Iterable[bytes]:
    from casemate.ledger import tiles

    yield tiles.bundle([_entry(), b"", b"x" * 300])


@target("entry-bundle", _bundles)
def entry_bundle() -> One:
    """Bundles of entries come back as they were."""
    from casemate.ledger import tiles

    def one(data: bytes) -> object:
        found = tiles.unbundle(data)
        if tiles.bundle(found) != data:
            raise AssertionError("a bundle has two readings")
        return found

    return one


def _histories() -> Iterable[bytes]:
    from casemate.ledger import note
    from casemate.ledger.history import History, Key

    keys = (Key(note.Verifier("log.example/one", bytes(32)), 0, 5), Key(note.Verifier("log.example/one", b"1" * 32), 5))
    yield json.dumps(History("log.example/one", keys).as_document()).encode()


@target("log-keys", _histories)
def log_keys() -> One:
    """Key histories of trust files."""
    from casemate.ledger import history
    from casemate.wire import jcs

    return lambda data: history.parse(jcs.parse(data))
