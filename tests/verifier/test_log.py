"""A log that lies to who looks at it: every lie is a refusal by its rule or malformed, none passes."""

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from casemate.errors import Malformed, Refused
from casemate.ledger import entry, merkle, note, tiles
from casemate.ledger.history import History, Key
from casemate.verifier import log as logs

KEY = Ed25519PrivateKey.generate()
PUBLIC = KEY.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
ORIGIN = "log.example/one"
KNOWN = History(ORIGIN, (Key(note.Verifier(ORIGIN, PUBLIC), 0),))


class Log:
    """A log in memory, served by path; `lies` replaces what stands at a path."""

    def __init__(self, count, salt=b"a", origin=ORIGIN):
        self.entries = [entry.make("attest", 1000 + i, True, {"n": i}, salt * 32) for i in range(count)]
        self.leaves = [merkle.leaf(one) for one in self.entries]
        self.origin, self.lies, self.asked = origin, {}, []

    def node(self, level, index):
        return merkle.complete(self.leaves[index << level : (index + 1) << level])

    @property
    def note(self):
        root = merkle.root(len(self.leaves), self.node)
        text = note.Checkpoint(self.origin, len(self.leaves), root).text()
        return note.sign(text, self.origin, PUBLIC, KEY.sign(text.encode()))

    def __call__(self, path):
        self.asked.append(path)
        if path in self.lies:
            return self.lies[path]
        if path == "checkpoint":
            return self.note.encode()
        level, number, width = tiles.parse_path(path.removeprefix("tile/"))
        start = number * tiles.WIDTH
        if level is None:
            return tiles.bundle(self.entries[start : start + width])
        return b"".join(self.node(level * tiles.HEIGHT, i) for i in range(start, start + width))


def rules(act):
    with pytest.raises(Refused) as refusal:
        act()
    return [finding.rule for finding in refusal.value.findings if not finding.ok]


@pytest.mark.parametrize("every", [False, True])
@pytest.mark.parametrize(("before", "now"), [(0, 0), (0, 5), (1, 2), (255, 257), (256, 700), (700, 700)])
def test_a_log_that_grew_passes(before, now, every):
    found = logs.check(Log(now), KNOWN, Log(before).note, every=every)
    assert (found.before.size, found.now.checkpoint.size) == (before, now)


def test_few_tiles_are_asked_for():
    log = Log(700)
    logs.check(log, KNOWN, Log(300).note)
    assert len(log.asked) == len(set(log.asked)) <= 5


@pytest.mark.parametrize(("before", "now"), [(5, 9), (300, 700), (700, 700)])
def test_another_history_is_refused(before, now):
    other = Log(before, salt=b"b").note
    assert rules(lambda: logs.check(Log(now), KNOWN, other)) == ["log.consistency"]


def test_a_log_that_went_back_is_refused():
    assert rules(lambda: logs.check(Log(4), KNOWN, Log(5).note)) == ["log.consistency"]


def test_tiles_that_do_not_make_the_root_are_refused():
    log = Log(10)
    log.lies["tile/0/000.p/10"] = Log(10, salt=b"b")("tile/0/000.p/10")
    assert rules(lambda: logs.check(log, KNOWN, None)) == ["log.tiles"]


def test_entries_that_do_not_make_the_root_are_refused():
    log = Log(10)
    log.lies["tile/entries/000.p/10"] = Log(10, salt=b"b")("tile/entries/000.p/10")
    logs.check(log, KNOWN, None)
    assert rules(lambda: logs.check(log, KNOWN, None, every=True)) == ["log.entries"]
    assert rules(lambda: logs.tail(log, KNOWN, 1)) == ["log.inclusion"]
    assert rules(lambda: logs.prove(log, KNOWN, 3)) == ["log.inclusion"]


def test_another_log_or_another_key_is_refused():
    assert rules(lambda: logs.newest(Log(3, origin="log.example/two"), KNOWN)) == ["log.signature"]
    both = History(ORIGIN, (*KNOWN.keys, Key(note.Verifier("log.example/two", PUBLIC), 0)))
    assert rules(lambda: logs.newest(Log(3, origin="log.example/two"), both)) == ["log.origin"]
    assert rules(lambda: logs.check(Log(3), KNOWN, Log(3).note.replace("\n3\n", "\n2\n"))) == ["log.signature"]


def test_entries_are_found_by_their_time():
    entries = logs.Entries(Log(300), logs.newest(Log(300), KNOWN))
    assert [entries.since(moment) for moment in (0, 1000, 1007, 1299, 1300)] == [0, 0, 7, 299, 300]
    with pytest.raises(Malformed):
        entries(300)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["checkpoint", "tile/0/000.p/10", "tile/entries/000.p/10"]), st.binary(max_size=700))
def test_any_answer_is_refused_or_malformed(path, data):
    log = Log(10)
    if data == log(path):
        return
    log.lies[path] = data
    for act in (lambda: logs.check(log, KNOWN, Log(4).note, every=True), lambda: logs.tail(log, KNOWN, 3)):
        with pytest.raises((Malformed, Refused)):
            act()
