"""The log at a million entries: appending, proving and starting cost what the logarithm allows; all is kept."""

import math
import os
import random
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from casemate.broker import receipts
from casemate.drivers.store import log as entries
from casemate.ledger import merkle, note, receipt, tiles
from casemate.testing import log as logs

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
STOPS = (1_000, 10_000, 100_000, 1_000_000)
BATCH = 256
ROUNDS = 40


class Counted:
    """Counts hashes of nodes and reads of tiles, whoever does them."""

    def __init__(self, monkeypatch):
        self.hashes = self.reads = 0
        parent, tile = merkle.parent, entries.tile

        def counted_parent(left, right):
            self.hashes += 1
            return parent(left, right)

        def counted_tile(tx, level, number):
            self.reads += 1
            return tile(tx, level, number)

        monkeypatch.setattr(merkle, "parent", counted_parent)
        monkeypatch.setattr(entries, "tile", counted_tile)

    def taken(self):
        found = (self.hashes, self.reads)
        self.hashes = self.reads = 0
        return found


def fill(log, size, seen, keep):
    """Grow to `size` entries in batches, as the writer makes them; most are never opened and have no real content."""
    with log.store.read() as tx:
        have = entries.state(tx).size
    while have < size:
        count = min(BATCH, size - have)
        numbers = range(have, have + count)
        pending = [entries.Pending(os.urandom(16).hex(), b"%d" % n, 1, "attest", None, None, b"") for n in numbers]

        pending[0] = log.log.pending("attest", NOW, True, {**logs.FIELDS, "n": have})
        with log.store.write() as tx:
            now = entries.append(tx, entries.lock(tx), pending, log.log.sign, NOW)
        have = now.size
        seen.append((now.size, now.root))
        if have // BATCH % 50 == 1:
            keep.append(pending[0].id)


def measured(log, ids, counted):
    """Median times and the most operations of one append and one proof."""
    appends, proofs, most_append, most_proof = [], [], (0, 0), (0, 0)
    for _ in range(ROUNDS):
        counted.taken()
        begun = time.perf_counter()
        ids.append(log.decide(logs.nonce()))
        appends.append(time.perf_counter() - begun)
        most_append = tuple(map(max, most_append, counted.taken()))
        begun = time.perf_counter()
        receipts.receipt(log, random.choice(ids))
        proofs.append(time.perf_counter() - begun)
        most_proof = tuple(map(max, most_proof, counted.taken()))
    return statistics.median(appends), statistics.median(proofs), most_append, most_proof


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_million_entries(tmp_path, monkeypatch, capsys):
    assert_growth(f"sqlite:///{tmp_path / 'store.db'}", STOPS, monkeypatch, capsys)


def test_some_thousand_entries(tmp_path, monkeypatch, capsys):
    """The same, short."""
    assert_growth(f"sqlite:///{tmp_path / 'store.db'}", (300, 3000), monkeypatch, capsys)


def assert_growth(url, stops, monkeypatch, capsys):
    seen, ids, lines = [], [], []
    with logs.opened(url) as log:
        counted = Counted(monkeypatch)
        for stop in stops:
            fill(log, stop, seen, ids)
            append, proof, appending, proving = measured(log, ids, counted)
            lines.append(
                f"{stop:>9} entries: append {append * 1000:.2f} ms, {appending[0]} hashes, {appending[1]} tiles; "
                f"receipt {proof * 1000:.2f} ms, {proving[0]} hashes, {proving[1]} tiles"
            )
            depth = math.ceil(math.log2(stop + ROUNDS))
            levels = depth // tiles.HEIGHT + 1
            # One hash for each peak that closes, one for each that is crowned, and 255 where a tile is full.
            assert appending[0] <= 2 * depth + (tiles.WIDTH - 1) * levels
            assert appending[1] <= levels
            # A proof has `depth` nodes; those between two levels of tiles are hashed again, 255 a tile at most.
            assert proving[0] <= tiles.WIDTH * levels * 2 + 2 * depth
            assert proving[1] <= 2 * levels
        counted.taken()
        size = sum(1 for _ in seen)
    begun = time.perf_counter()
    with logs.opened(url) as log:
        started = time.perf_counter() - begun
        hashes, reads = counted.taken()
        lines.append(f"start-up {started:.2f} s, {hashes} hashes and {reads} tiles")
        assert reads <= 4
        assert hashes <= tiles.WIDTH * 8
        begun = time.perf_counter()
        with log.store.read() as tx:
            now, node = entries.state(tx), tiles.nodes(entries.reader(tx))
            for old, root in seen:
                proof = merkle.consistency(old, now.size, node)
                assert merkle.verify_consistency(old, now.size, proof, root, now.root), old
        lines.append(f"{size} checkpoints are consistent with the last, {time.perf_counter() - begun:.1f} s")
        known = receipts.keys(log)
        for number in random.sample(ids, min(len(ids), 60)):
            assert receipt.verify(receipts.receipt(log, number), known).size == now.size
        assert not receipts.extends(log, note.Checkpoint(now.origin, seen[0][0], bytes(32)))
        lines.append(f"{Path(log.store.url.database).stat().st_size / now.size:.0f} bytes an entry in the store")
    with capsys.disabled():
        print("\n" + "\n".join(lines))
