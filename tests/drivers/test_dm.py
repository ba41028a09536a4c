"""Device-mapper without a kernel: the bytes of the ioctl, and the error where there is no device-mapper."""

import struct

import pytest

from casemate.drivers import dm
from casemate.errors import Unavailable
from casemate.volume import tables


def test_the_header_has_the_kernels_size():
    assert dm._HEAD.size == 312
    assert dm._SPEC.size == 40


def test_targets_are_packed_one_behind_the_other_on_eight_bytes():
    lines = tables.base("/dev/loop0", "/dev/vdb", 131072)
    packed = bytes(dm._pack(lines))
    offset = 0
    for line in lines:
        start, length, status, following, kind = struct.unpack_from("=QQiI16s", packed, offset)
        text = packed[offset + 40 : offset + following]
        assert (start, length, status) == (line.start, line.length, 0)
        assert kind.rstrip(b"\0") == line.kind.encode()
        assert text.rstrip(b"\0").decode() == line.parameters
        assert text.endswith(b"\0")
        assert following % 8 == 0
        offset += following
    assert offset == len(packed)


def test_without_device_mapper_the_error_names_the_step_and_no_key(monkeypatch, tmp_path):
    monkeypatch.setattr(dm, "CONTROL", tmp_path / "control")
    key = b"k" * 16
    with pytest.raises(Unavailable) as error:
        dm.create("v", [tables.crypt("/dev/dm-1", 8, key)])
    assert "create" in str(error.value)
    assert key.hex() not in repr(error.value.__cause__) + str(error.value)


def test_a_disk_is_found_by_its_serial_and_two_of_one_name_are_a_lie(monkeypatch, tmp_path):
    for disk, serial in (("vda", "root"), ("vdb", "vol-data"), ("vdc", "vol-twice\n"), ("vdd", "vol-twice")):
        (tmp_path / disk).mkdir()
        (tmp_path / disk / "serial").write_text(serial)
    (tmp_path / "vde").mkdir()
    monkeypatch.setattr(dm, "BLOCKS", tmp_path)
    assert dm.disk("vol-data") == "/dev/vdb"
    assert dm.disk("vol-other") is None
    with pytest.raises(Unavailable):
        dm.disk("vol-twice")
