"""A relying party's look at a broker's log: is it signed, did it only grow, is an entry in it.

Nothing that it says is believed but what leads to a checkpoint that a key of the trust file signed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from casemate.errors import Finding, Malformed, Refused
from casemate.ledger import entry, merkle, note, tiles
from casemate.ledger.history import History
from casemate.wire.encoding import b64

Fetch = Callable[[str], bytes]
"""What stands at a path below the log's root, such as `checkpoint` or `tile/0/000`."""


class Signed(NamedTuple):
    """A checkpoint with the note that carries it."""

    note: str
    checkpoint: note.Checkpoint


class Proved(NamedTuple):
    """An entry whose place in the log was verified."""

    number: int
    entry: bytes
    proof: tuple[bytes, ...]


@dataclass(frozen=True)
class Checked:
    """What a check found: the checkpoint now, the one of before, every rule."""

    now: Signed
    before: note.Checkpoint | None
    findings: tuple[Finding, ...]


def opened(text: str, log: History) -> Signed:
    """A note as a checkpoint of this log; `Refused` when another key or another log signed."""
    signed, _ = note.open_note(text, log.verifiers)
    found = note.parse_checkpoint(signed)
    if found.origin != log.origin:
        raise Refused.because(
            "log.origin", expected=log.origin, found=found.origin[:100], hint="the trust file is of another log"
        )
    return Signed(text, found)


def newest(fetch: Fetch, log: History) -> Signed:
    """The log's newest checkpoint."""
    try:
        return opened(fetch("checkpoint").decode("utf-8"), log)
    except UnicodeDecodeError as error:
        raise Malformed("checkpoint: not UTF-8") from error


def reader(fetch: Fetch, size: int) -> tiles.Read:
    """Tiles of the log at that size, each fetched once."""
    known: dict[tuple[int, int], bytes] = {}

    def read(level: int, number: int) -> bytes:
        if (level, number) not in known:
            width = tiles.width_at(level, number, size)
            data = fetch(tiles.path(level, number, width)) if width else b""
            if len(data) != width * merkle.SIZE:
                raise Malformed(f"log: tile {level}/{number} has {len(data)} bytes, {width * merkle.SIZE} are wanted")
            known[level, number] = data
        return known[level, number]

    return read


class Entries:
    """Entries of the log at one checkpoint, each verified; tiles are fetched once, bundles remembered for a while."""

    def __init__(self, fetch: Fetch, now: Signed) -> None:
        self.size, self._root = now.checkpoint.size, now.checkpoint.root
        self._node = tiles.nodes(reader(fetch, self.size))
        self._bundle = lru_cache(8)(lambda number: _bundle(fetch, number, self.size))

    def __call__(self, number: int) -> Proved:
        """The entry of that number with its proof; `Malformed` when the log is not that long."""
        proof = tuple(merkle.inclusion(number, self.size, self._node))
        data = self._bundle(number // tiles.WIDTH)[number % tiles.WIDTH]
        if not merkle.verify_inclusion(merkle.leaf(data), number, self.size, proof, self._root):
            raise Refused([_rule("log.inclusion", False, f"entry {number}", "another entry")])
        return Proved(number, data, proof)

    def since(self, moment: int) -> int:
        """The first number from which on entries are of that time (milliseconds) or later, if they are in order."""
        return bisect_left(range(self.size), moment, key=lambda number: entry.parse(self(number).entry).time)


def check(fetch: Fetch, log: History, remembered: str | None, *, every: bool = False) -> Checked:
    """Whether the log still holds what it said in the remembered checkpoint; with `every` each entry is read too.

    `Refused` when it does not: then somebody was shown another log, and the remembered checkpoint proves it.
    """
    now = newest(fetch, log)
    node = tiles.nodes(reader(fetch, now.checkpoint.size))
    size, root = now.checkpoint.size, now.checkpoint.root
    findings = [Finding("log.signature", "a key of the log", f"{size} entries, root {b64(root)}", ok=True)]
    before = opened(remembered, log).checkpoint if remembered is not None else None
    if before is not None:
        findings.append(_grown(before, now.checkpoint, node))
    if every:
        findings.append(_rule("log.entries", merkle.crown(_peaks(fetch, size)) == root, "the entries make this root"))
    else:
        findings.append(_rule("log.tiles", merkle.root(size, node) == root, "the tiles make this root"))
    if not all(f.ok for f in findings):
        raise Refused(findings)
    return Checked(now, before, tuple(findings))


def prove(fetch: Fetch, log: History, index: int) -> tuple[Signed, Proved]:
    """One entry with a proof that was verified."""
    now = newest(fetch, log)
    return now, Entries(fetch, now)(index)


def tail(fetch: Fetch, log: History, count: int) -> tuple[Signed, list[Proved]]:
    """The last entries, each verified."""
    now = newest(fetch, log)
    entries, size = Entries(fetch, now), now.checkpoint.size
    return now, [entries(number) for number in range(max(0, size - count), size)]


def _grown(before: note.Checkpoint, now: note.Checkpoint, node: merkle.Node) -> Finding:
    said = f"an extension of {before.size} entries"
    if now.size < before.size:
        return _rule("log.consistency", False, said, f"{now.size} entries")
    proof = merkle.consistency(before.size, now.size, node)
    good = merkle.verify_consistency(before.size, now.size, proof, before.root, now.root)
    return _rule("log.consistency", good, said, "another history")


def _rule(rule: str, ok: bool, expected: str, found: str = "others") -> Finding:
    hint = "" if ok else "keep both checkpoints and tell others: this log was changed, or you were shown another one"
    return Finding(rule, expected, expected if ok else found, hint, ok=ok)


def _bundle(fetch: Fetch, number: int, size: int) -> list[bytes]:
    width = tiles.width_at(0, number, size)
    found = tiles.unbundle(fetch(tiles.path(None, number, width)))
    if len(found) != width:
        raise Malformed(f"log: bundle {number} has {len(found)} entries, {width} are wanted")
    return found


def _peaks(fetch: Fetch, size: int) -> tuple[bytes, ...]:
    peaks: tuple[bytes, ...] = ()
    for number in range((size + tiles.WIDTH - 1) // tiles.WIDTH):
        leaves = []
        for data in _bundle(fetch, number, size):
            entry.parse(data)
            leaves.append(merkle.leaf(data))
        peaks = merkle.extended(number * tiles.WIDTH, peaks, leaves)
    return peaks
