import contextlib
import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casemate.errors import Malformed
from casemate.image.tarstream import MAX_EXTENDED, MAX_PAX, Reader
from casemate.testing import tars


def read(data, size=1 << 20):
    reader = Reader(data[i : i + size] for i in range(0, len(data), size))
    return [(entry.name, entry.kind, b"".join(bytes(p) for p in reader.data())) for entry in reader]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("size", [1 << 20, 512, 7])
def test_what_tarfile_writes(form, size):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for number, name in enumerate(["a", "dir/" * 20 + "b" * 20, "c"]):
            longer = "dir" if form == tarfile.USTAR_FORMAT else "long-directory-name"
            info = tarfile.TarInfo(name.replace("dir", longer))
            info.size, info.mtime, info.uid = number * 700, 1234567, 3
            archive.addfile(info, io.BytesIO(b"z" * info.size))
        info = tarfile.TarInfo("link")
        info.type, info.linkname = tarfile.SYMTYPE, "t" * (99 if form == tarfile.USTAR_FORMAT else 300)
        archive.addfile(info)
    found = read(buffer.getvalue(), size)
    assert [len(item[2]) for item in found] == [0, 700, 1400, 0]
    assert found[1][0].endswith(b"b" * 20)
    entries = list(Reader([buffer.getvalue()]))
    assert {entry.mtime for entry in entries[:3]} == {1234567}
    assert entries[3].link == info.linkname.encode()


def test_sizes_in_pax_headers_count():
    layer = tars.pax({b"size": b"600"}) + tars.header(b"f", size=0) + tars.data(b"x" * 600) + tars.file(b"g", b"1")
    assert [item[:1] + item[2:] for item in read(layer + bytes(1024))] == [(b"f", b"x" * 600), (b"g", b"1")]


def test_folders_and_links_have_no_data_whatever_they_say():
    layer = tars.header(b"d", b"5", size=512) + tars.header(b"l", b"1", link=b"x", size=99) + tars.file(b"f", b"1")
    assert [item[0] for item in read(layer + bytes(1024))] == [b"d", b"l", b"f"]


def test_base256_numbers():
    size = b"\x80" + (3).to_bytes(11, "big")
    layer = tars.header(b"f", raw_size=size, raw_mtime=b"\xff" * 12) + tars.data(b"abc") + bytes(1024)
    entry = next(iter(Reader([layer])))
    assert (entry.size, entry.mtime) == (3, 0)


@pytest.mark.parametrize(
    "raw",
    [
        {"raw_size": b"\xff" * 12},  # negative
        {"raw_size": b"\x80" + b"\xff" * 11},  # astronomical
        {"raw_size": b"\x81" + bytes(11)},  # neither
        {"raw_size": b"-0000000001\0"},
        {"raw_size": b"0000000009\0\0"},
        {"raw_mode": b"notoctal"},
        {"raw_uid": b"\xff" * 8},
        {"raw_checksum": b"000000\0 "},
        {"raw_checksum": b"\xff" * 8},
        {"raw_checksum": b"zzzzzz\0 "},
    ],
)
def test_bad_fields(raw):
    with pytest.raises(Malformed):
        read(tars.tar(tars.header(b"f", **raw)))


@pytest.mark.parametrize(
    "records",
    [
        {b"size": b"-1"},
        {b"size": b"99999999999999999999999"},
        {b"size": b"1e3"},
        {b"size": b""},
        {b"uid": b"4294967295"},
        {b"mtime": b"soon"},
        {b"mtime": b"1.x"},
    ],
)
def test_bad_pax_values(records):
    with pytest.raises(Malformed):
        read(tars.tar(tars.pax(records), tars.file(b"f", b"1")))


@pytest.mark.parametrize(
    "body",
    [b"5 a=b\n", b"x a=b\n", b"0 a=b\n", b"999 a=b\n", b"6 a=b\n6", b"5 a=b", b"4 =b\n",
     b"5 ab\n", b"\0" * 6, b"99999999999999 a=b\n"],
)  # fmt: skip
def test_broken_pax_records(body):
    with pytest.raises(Malformed):
        read(tars.tar(tars.header(b"p", b"x", size=len(body)), tars.data(body), tars.file(b"f")))


def test_negative_time_is_the_epoch():
    entry = next(iter(Reader([tars.tar(tars.pax({b"mtime": b"-5.25"}), tars.file(b"f"))])))
    assert entry.mtime == 0


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
def test_extended_headers_are_bounded(kind):
    with pytest.raises(Malformed, match="extended header"):
        read(tars.tar(tars.header(b"p", kind, size=MAX_PAX + 1)))


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
def test_the_sum_of_extended_headers_is_bounded(kind):
    size = MAX_PAX // 4
    piece = tars.header(b"p", kind, size=size) + (b"%d a=" % size).ljust(size - 1, b"x") + b"\n"
    if kind in b"xg":  # a name of that length is refused for itself
        read(tars.tar(piece * 4, tars.file(b"f"), piece * 4, tars.file(b"g")))  # each entry has a bound of its own
    with pytest.raises(Malformed, match="before one entry"):
        read(tars.tar(piece * 5, tars.file(b"f")))


def test_the_number_of_extended_headers_is_bounded():
    one = tars.pax({b"mtime": b"1"})
    read(tars.tar(one * MAX_EXTENDED, tars.file(b"f"), one * MAX_EXTENDED, tars.file(b"g")))
    with pytest.raises(Malformed, match="before one entry"):
        read(tars.tar(one * (MAX_EXTENDED + 1), tars.file(b"f")))


def test_extended_header_at_the_end():
    with pytest.raises(Malformed, match="behind an extended header"):
        read(tars.tar(tars.pax({b"path": b"x"})))


def test_global_header_changes_nothing():
    assert read(tars.tar(tars.pax({b"path": b"../x"}, b"g"), tars.file(b"f")))[0][0] == b"f"


def test_lone_zero_block():
    with pytest.raises(Malformed, match="zeros"):
        read(tars.file(b"a") + bytes(512) + tars.tar(tars.file(b"hidden")))


def test_what_follows_the_end_is_read_and_ignored():
    seen = []

    def chunks():
        for chunk in (tars.tar(tars.file(b"a")), tars.tar(tars.file(b"hidden")), b"junk"):
            seen.append(chunk)
            yield chunk

    assert [entry.name for entry in Reader(chunks())] == [b"a"]
    assert len(seen) == 3


def test_empty_and_unterminated():
    assert read(b"") == []
    assert len(read(tars.file(b"a", b"1"))) == 1
    assert read(bytes(10240)) == []


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=2048))
def test_any_bytes(data):
    with contextlib.suppress(Malformed):
        read(data)


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_any_change_of_a_real_archive(data):
    layer = bytearray(
        tars.tar(tars.pax({b"path": b"abc", b"size": b"5"}), tars.file(b"f", b"12345"), tars.symlink(b"s", b"f"))
    )
    for _ in range(data.draw(st.integers(1, 4))):
        layer[data.draw(st.integers(0, len(layer) - 1))] = data.draw(st.integers(0, 255))
    fix = data.draw(st.booleans())
    if fix:  # a right checksum, so that the change gets past the first gate
        block = bytearray(layer[1024:1536])
        block[148:156] = b" " * 8
        layer[1024 + 148 : 1024 + 156] = b"%06o\0 " % sum(block)
    with contextlib.suppress(Malformed):
        read(bytes(layer), data.draw(st.sampled_from([1, 100, 4096])))
