"""Tables of a volume: their text is exactly what the kernel is told, whatever lies on the disk."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.errors import Malformed
from casemate.volume import tables

MIB = (1 << 20) // tables.SECTOR


def test_the_base_takes_its_header_from_memory_and_skips_the_disks_own():
    first, rest = tables.base("/dev/loop0", "/dev/vdb", 64 * MIB)
    assert str(first) == "0 8 linear /dev/loop0 0"
    assert str(rest) == f"8 {64 * MIB - 8} linear /dev/vdb 8"


@pytest.mark.parametrize("sectors", [0, 8, tables.LEAST - 8, 64 * MIB + 1])
def test_a_disk_too_small_or_in_odd_sectors_is_malformed(sectors):
    with pytest.raises(Malformed):
        tables.base("/dev/loop0", "/dev/vdb", sectors)


def test_the_integrity_table():
    line = tables.integrity("/dev/dm-0", 129248, bytes(range(32)))
    assert str(line) == (
        "0 129248 integrity /dev/dm-0 0 32 J 3 block_size:4096 "
        f"journal_mac:hmac(sha256):{bytes(range(32)).hex()} fix_hmac"
    )


def test_the_crypt_table():
    line = tables.crypt("/dev/dm-1", 129248, b"k" * 16)
    assert str(line) == (
        f"0 129248 crypt capi:aegis128-random {(b'k' * 16).hex()} 0 /dev/dm-1 0 2 integrity:32:aead sector_size:4096"
    )


def test_keys_of_another_size_are_malformed():
    with pytest.raises(Malformed):
        tables.crypt("/dev/dm-1", 8, b"k" * 32)
    with pytest.raises(Malformed):
        tables.integrity("/dev/dm-0", 8, b"")


def test_a_table_line_shows_no_key_when_it_is_printed_for_debugging():
    line = tables.crypt("/dev/dm-1", 8, b"k" * 16)
    assert (b"k" * 16).hex() not in repr(line)


@given(st.integers(tables.LEAST // 8, 1 << 28).map(lambda blocks: blocks * 8))
def test_first_writes_lie_inside_and_cover_every_groups_first_block(length):
    spans = tables.first_writes(length)
    size = length * tables.SECTOR
    assert all(offset >= 0 and offset + count <= size and offset % tables.BLOCK == 0 for offset, count in spans)
    starts = {offset for offset, _ in spans}
    assert all(group * tables.BLOCK in starts for group in range(0, length // 8, 32768))
    assert spans[-1][0] + spans[-1][1] == size
