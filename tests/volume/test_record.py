"""The broker's record: only our own superblock in our own form is ever built into a mapping."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.errors import Malformed, Refused
from casemate.volume import record, tables
from casemate.wire.encoding import b64

SIZE = 64 << 20


def superblock(
    *, magic=b"integrt\0", version=5, tag=32, sections=3, provided=129248, flags=0x11, log2_block=3, size=512
) -> bytes:
    head = struct.pack("<8sBBHIQIBB", magic, version, 15, tag, sections, provided, flags, log2_block, 12)
    return head.ljust(size, b"\0")


def document(**changes):
    return {
        "version": 1,
        "uuid": "0f" * 16,
        "size": SIZE,
        "provided": 129248,
        "superblock": b64(superblock()),
        **changes,
    }


def test_a_record_survives_its_journey():
    made = record.Record("ab" * 16, SIZE, 129248, superblock())
    assert record.parse(made.as_json()) == made


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"version": True},
        {"uuid": "0F" * 16},
        {"uuid": "0f" * 16 + "\n"},
        {"uuid": 5},
        {"size": SIZE + 512},
        {"size": 0},
        {"size": -SIZE},
        {"size": 1 << 60},
        {"size": str(SIZE)},
        {"provided": 129240},
        {"provided": 1 << 40, "superblock": b64(superblock(provided=1 << 40))},
        {"superblock": b64(superblock(size=4096))},
        {"superblock": b64(bytes(512))},
        {"superblock": b64(superblock(magic=b"LUKS\xba\xbe\0\2"))},
        {"superblock": b64(superblock(version=9))},
        {"superblock": b64(superblock(tag=0))},
        {"superblock": b64(superblock(log2_block=0))},
        {"superblock": b64(superblock(flags=0x10))},
        {"superblock": b64(superblock(flags=0x13))},
        {"superblock": b64(superblock(sections=0))},
        {"superblock": "!"},
        {"superblock": None},
        {"more": 1},
    ],
)
def test_whatever_else_is_malformed(changes):
    with pytest.raises(Malformed):
        record.parse(document(**changes))


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=9), lambda x: st.lists(x, max_size=3))


@given(JSON | st.fixed_dictionaries(dict.fromkeys(document(), JSON)))
def test_the_parser_raises_only_its_own_error(value):
    with pytest.raises(Malformed):
        record.parse(value)


@given(st.binary(max_size=600))
def test_superblocks_of_any_bytes(data):
    try:
        provided = record.provided_sectors(data)
    except Malformed:
        return
    assert provided % tables.HEADER == 0


def test_a_disk_of_another_size_is_refused():
    known = record.parse(document())
    known.demand_size(SIZE)
    with pytest.raises(Refused) as refusal:
        known.demand_size(SIZE + 4096)
    assert refusal.value.findings[0].rule == "volume.size"
