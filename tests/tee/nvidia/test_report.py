import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casemate.errors import Malformed
from casemate.tee.nvidia import ocsp, report
from casemate.testing.nvidia import FakeGpu

GPU = FakeGpu()
DATA = GPU.report(b"n" * 32)


def test_fields():
    found = report.parse(DATA)
    assert (found.driver, found.vbios, found.nonce) == ("550.90.07", "96.00.9F.00.01", b"n" * 32)
    assert found.measurements == GPU.measurements
    assert found.signed + found.signature == DATA
    assert found.flag(report.NVDEC0) is False
    assert found.flag(report.BOARD_ID) is None
    switch = report.parse(FakeGpu("LS10").report(b"n" * 32))
    assert (switch.driver, switch.vbios) == ("", "96.00.9F.00.01")


@pytest.mark.parametrize("feature", [(21, b"\xaa"), (36, b"\2\0")])
def test_protected_pcie_is_told_by_either_field(feature):
    number, value = feature
    assert report.parse(FakeGpu(fields={number: value}).report(b"")).protected_pcie


@pytest.mark.parametrize(
    "change",
    [
        lambda d: b"\x12" + d[1:],  # another version
        lambda d: d[:2] + b"\0" + d[3:],  # no signature asked for
        lambda d: d[:3] + b"\1" + d[4:],  # one measurement asked for
        lambda d: d[:38] + b"\x7f" + d[39:],  # an error for a response
        lambda d: d + b"\0",
        lambda d: d[:-1],
        lambda d: d[:45] + b"\2" + d[46:],  # the first block twice: index 2
        lambda d: d[:46] + b"\2" + d[47:],  # no DMTF block
        lambda d: d[:41] + bytes([d[41] - 1]) + d[42:],  # fewer blocks than there are
        lambda d: b"",
        lambda d: d + bytes(report.MAX_REPORT),
    ],
)
def test_malformed(change):
    with pytest.raises(Malformed, match="report"):
        report.parse(change(DATA))


def test_opaque_fields_stand_there_once():
    gpu = FakeGpu()
    data = gpu.report(b"")
    field = struct.pack("<HH", 21, 1) + b"\x55"
    assert data.count(field) == 1
    size = sum(4 + len(v) for v in gpu.parts.opaque.values())
    doubled = data.replace(struct.pack("<H", size), struct.pack("<H", size + 5), 1).replace(field, field * 2)
    with pytest.raises(Malformed, match="field 21 stands there twice"):
        report.parse(doubled)


def test_a_version_that_is_no_word_is_malformed():
    for number in (3, 15, 17, 35):
        with pytest.raises(Malformed, match="not a word"):
            report.parse(FakeGpu(fields={number: b"a/../b"}).report(b""))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_fuzz_reports(data):
    at = data.draw(st.integers(0, len(DATA)))
    cut = data.draw(st.integers(0, 60))
    try:
        report.parse(DATA[:at] + data.draw(st.binary(max_size=60)) + DATA[at + cut :])
    except Malformed:
        pass


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_fuzz_opaque_data(opaque):
    try:
        fields = report._fields(opaque)
        assert sum(4 + len(v) for v in fields.values()) == len(opaque)
    except Malformed:
        pass


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_fuzz_ocsp_responses(data):
    good = GPU.endorsements.collateral["ocsp/0.der"] if not SEEDS else SEEDS[0]
    SEEDS[:] = [good]
    at = data.draw(st.integers(0, len(good)))
    try:
        ocsp._read(good[:at] + data.draw(st.binary(max_size=8)) + good[at + data.draw(st.integers(0, 8)) :])
    except Malformed:
        pass


SEEDS: list[bytes] = []
