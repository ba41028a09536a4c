"""MRTD and RTMRs: by hand, against published values of a firmware file, and against the logs of genuine domains."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from importlib import import_module
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casemate.boot import authenticode, eventlog
from casemate.errors import Malformed, Unusable
from casemate.schema.launch import Launch
from casemate.tee import tdx
from casemate.tee.dcap import quote as quotes
from casemate.tee.tdx import firmware as images
from casemate.tee.tdx import rtmr0
from casemate.testing import published
from casemate.testing.ovmf import TDX_SECTIONS, firmware, tdx_firmware, tdx_metadata

measure = import_module("casemate.tee.tdx.measure")
EVIDENCE = published.folder("tdx")
needs_evidence = pytest.mark.skipif(EVIDENCE is None, reason="the published evidence set is not on this machine")
# MRTD of /usr/share/ovmf/OVMF.fd of Ubuntu's ovmf 2025.02-3ubuntu2, as the tests of virtee/tdx-measure state it.
KNOWN_FIRMWARE = "9e807cb2cd4313406a3aa4becc0836671a5c64ca7bdc08a45e15260184b446bf"
KNOWN_MRTD = "7357a10d2e2724dffe68813e3cc4cfcde6814d749f2fb62e3953e54f6e0b50a219786afe2cd478f684b52c61837e1114"
MiB = 1 << 20


def record(name: bytes, address: int) -> bytes:
    return name + bytes(16 - len(name)) + address.to_bytes(8, "little") + bytes(104)


def by_hand(image: bytes, *, two_pass: bool = False, parts=TDX_SECTIONS) -> str:
    """MRTD written down once more, from the specification, in another shape."""
    records = []
    for offset, raw, address, size, _, attributes in parts:
        data = image[offset : offset + raw] + bytes(size - raw)
        adds = [(at, record(b"MEM.PAGE.ADD", address + at)) for at in range(0, size, 4096)]
        extends = [(at, record(b"MR.EXTEND", address + at) + data[at : at + 256]) for at in range(0, size, 256)]
        both = adds + (extends if attributes & 1 else [])
        if not two_pass:
            both.sort(key=lambda pair: (pair[0] // 4096, pair[1][:2] != b"ME", pair[0]))
        records += [record for _, record in both]
    return hashlib.sha384(b"".join(records)).hexdigest()


@pytest.mark.parametrize("two_pass", [False, True])
def test_mrtd_by_hand(two_pass):
    image = tdx_firmware()
    vmm = "qemu-two-pass" if two_pass else ""
    assert tdx.measure(Launch(firmware=image, vmm=vmm)).values == {"mrtd": by_hand(image, two_pass=two_pass)}


def test_mrtd_of_a_published_firmware():
    path = os.environ.get("CASEMATE_OVMF_TDX", "")
    if not path:
        pytest.skip("CASEMATE_OVMF_TDX does not name Ubuntu's OVMF.fd (package ovmf 2025.02-3ubuntu2)")
    data = Path(path).read_bytes()
    assert hashlib.sha256(data).hexdigest() == KNOWN_FIRMWARE
    assert tdx.measure(Launch(firmware=data)).values == {"mrtd": KNOWN_MRTD}


def test_what_is_not_measured_counts_for_nothing():
    image = bytearray(tdx_firmware())
    before = measure.mrtd(bytes(image))
    image[0] ^= 1  # in the variable store
    assert measure.mrtd(bytes(image)) == before
    image[0x4000] ^= 1
    assert measure.mrtd(bytes(image)) != before


def test_pages_added_later_are_not_added():
    later = (*TDX_SECTIONS[:2], (0, 0, 0x820000, 0x10000, 4, 2))
    image = tdx_firmware(tdx_metadata(later))
    assert measure.mrtd(image).hex() == by_hand(image, parts=TDX_SECTIONS[:2])


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (tdx_metadata(signature=b"TDVX"), "not known"),
        (tdx_metadata(version=2), "not known"),
        (tdx_metadata(size=16), "sections"),
        (tdx_metadata(count=33), "sections"),
        (tdx_metadata([(0, 0, 0x1000, 0x1000, 8, 0)]), "type 0x8"),
        (tdx_metadata([(0, 0, 0x1000, 0x1000, 3, 3)]), "attributes"),
        (tdx_metadata([(0, 0, 0x1000, 0x1000, 3, 4)]), "attributes"),
        (tdx_metadata([(0, 0, 0x1001, 0x1000, 3, 0)]), "section at"),
        (tdx_metadata([(0, 0, 0x1000, 0x1001, 3, 0)]), "section at"),
        (tdx_metadata([(0, 0x2000, 0x1000, 0x1000, 0, 1)]), "section at"),
        (tdx_metadata([(0, 0, 0x1000, 1 << 40, 3, 0)]), "section at"),
        (tdx_metadata([(0, 0, 1 << 63, 0x1000, 3, 0)]), "section at"),
        (tdx_metadata([(0, 0, 0, 100 << 20, 3, 0)] * 2), "more than"),
        (tdx_metadata([(0xF000, 0x2000, 0x1000, 0x2000, 0, 1)]), "not in this file"),
    ],
    ids=str,
)
def test_malformed_metadata(block, message):
    with pytest.raises(Malformed, match=message):
        images.sections(tdx_firmware(block))


@pytest.mark.parametrize("offset", [0, 15, 1 << 20])
def test_metadata_out_of_the_image(offset):
    with pytest.raises(Malformed, match="before the end"):
        images.sections(tdx_firmware(offset=offset))


@pytest.mark.parametrize("image", [b"", firmware(), tdx_firmware(tdx_metadata([]))], ids=["none", "snp", "empty"])
def test_firmware_without_tdx(image):
    with pytest.raises(Unusable, match="firmware"):
        tdx.measure(Launch(firmware=image))


@pytest.mark.parametrize("changes", [{"vmm": "gce"}, {"guest_features": 1}, {"image": b"x"}], ids=str)
def test_launches_that_are_not_measured(changes):
    with pytest.raises(Unusable):
        tdx.measure(msgspec.structs.replace(Launch(firmware=tdx_firmware()), **changes))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_change_of_the_metadata_raises_only_its_error(data):
    raw = bytearray(tdx_firmware())
    for _ in range(data.draw(st.integers(1, 6))):
        back = data.draw(st.one_of(st.integers(1, 120), st.integers(1024 - 208, 1024)))
        raw[-back] = data.draw(st.integers(0, 255))
    try:
        images.sections(bytes(raw))
    except Malformed:
        return


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_any_metadata_raises_only_its_error(block):
    try:
        images.sections(tdx_firmware(b"TDVF" + block))
    except Malformed:
        return


# Kernel, command line, initrd


def pe(code: bytes = b"code") -> bytes:
    """A PE32+ image of one section."""
    optional = bytearray(240)
    struct.pack_into("<H", optional, 0, 0x20B)
    struct.pack_into("<I", optional, 60, 0x200)
    struct.pack_into("<I", optional, 108, 16)
    head = b"MZ" + bytes(58) + struct.pack("<I", 64)
    coff = b"PE\0\0" + struct.pack("<HHIIIHH", 0x8664, 1, 0, 0, 0, len(optional), 0)
    section = struct.pack("<8sIIII16x", b".s", len(code), 0x1000, len(code), 0x200)
    return (head + coff + bytes(optional) + section).ljust(0x200, b"\0") + code


def genuine_logs() -> list[tuple[str, list[tuple[int, int, bytes]], tuple[bytes, ...]]]:
    """(name, (register, type, digest) of each event, RTMRs of the quote) of direct boots in the evidence set."""
    if EVIDENCE is None:
        return []
    found = []
    folder = EVIDENCE / "v4-b0c06f-ccel-tdreport"
    log = eventlog.parse((folder / "ccel2.bin").read_bytes(), padded=True)
    events = [(e.register - 1, e.type, e.digests["sha384"]) for e in log.events if e.extended]
    found.append((folder.name, events, quotes.parse((folder / "quote.bin").read_bytes()).body.rtmrs))
    folder = EVIDENCE / "v4-90c06f-dstack-eventlog"
    text = json.loads((folder / "quote-report.json").read_text())["event_log"]
    events = [(e["imr"], e["event_type"], bytes.fromhex(e["digest"])) for e in json.loads(text)]
    found.append((folder.name, events, quotes.parse((folder / "quote.bin").read_bytes()).body.rtmrs))
    return found


@needs_evidence
@pytest.mark.parametrize("number", range(2))
def test_rtmr1_and_rtmr2_have_the_shape_of_genuine_direct_boots(number):
    _, events, rtmrs = genuine_logs()[number]
    (kernel,) = [d for r, kind, d in events if r == 1 and kind == eventlog.EV_EFI_BOOT_SERVICES_APPLICATION]
    loaded = [d for r, kind, d in events if r == 2 and kind == eventlog.EV_EVENT_TAG]
    assert len(loaded) == 2
    assert measure.rtmr1(kernel) == rtmrs[1]
    assert measure.replay(loaded) == rtmrs[2]


def test_rtmrs_of_files():
    kernel, line = pe(), "console=ttyS0"
    launch = Launch(firmware=tdx_firmware(), kernel=kernel, initrd=b"i" * 9, command_line=line)
    launch = msgspec.structs.replace(launch, recorded={"rtmr0": "AB", "pcr0": "CD"})
    values = tdx.measure(launch).values
    options = (line + " initrd=initrd\0").encode("utf-16-le")
    wanted = measure.replay([hashlib.sha384(options).digest(), hashlib.sha384(b"i" * 9).digest()])
    assert values["rtmr2"] == wanted.hex()
    assert values["rtmr1"] == measure.rtmr1(authenticode.digest(kernel, "sha384")).hex()
    assert sorted(values) == ["mrtd", "rtmr0", "rtmr1", "rtmr2"]
    assert values["rtmr0"] == "ab"
    bare = tdx.measure(Launch(firmware=tdx_firmware(), kernel=kernel, command_line=line)).values
    assert bare["rtmr2"] == measure.replay([hashlib.sha384((line + "\0").encode("utf-16-le")).digest()]).hex()


def test_a_kernel_that_is_none():
    with pytest.raises(Malformed, match="PE"):
        tdx.measure(Launch(firmware=tdx_firmware(), kernel=b"ELF"))


# RTMR 0


def hob(layout: str, memory_mib: int) -> str:
    made = tdx_firmware()
    if layout == "2022":  # OVMF until 2023
        old = [s if s[2] != 0x811000 else (0, 0, 0x810000, 0x10000, 3, 0) for s in TDX_SECTIONS]
        made = tdx_firmware(tdx_metadata(old))
    return hashlib.sha384(rtmr0.hand_off(images.sections(made), memory_mib * MiB)).hexdigest()


@needs_evidence
def test_the_hand_off_of_genuine_domains():
    logs = genuine_logs()
    handed = [next(d.hex() for r, kind, d in events if (r, kind) == (0, 0x8000000B)) for _, events, _ in logs]
    vm = json.loads((EVIDENCE / "v4-90c06f-dstack-eventlog" / "quote-report.json").read_text())["vm_config"]
    vm = json.loads(vm) if isinstance(vm, str) else vm
    assert hob("2022", vm["memory_size"] // MiB) == handed[1]
    assert hob("2024", 2048) == handed[0]  # its size is not published: of the multiples of 512 MiB only this fits
    assert hob("2024", 2560) != handed[0]


def accounted(log: bytes, *, memory_mib: int = 2048, **changes):
    return tdx.measure(Launch(firmware=tdx_firmware(), event_log=log, memory_mib=memory_mib, **changes))


@needs_evidence
def test_every_event_of_a_genuine_log_is_accounted_for():
    log = (EVIDENCE / "v4-b0c06f-ccel-tdreport" / "ccel2.bin").read_bytes()
    found = accounted(log)
    classes = [f.rule.removeprefix("tdx.rtmr0.") for f in found.findings]
    assert classes == ["td_hob", "cfv", *["variable"] * 5, "separator", *["config"] * 3, "boot", "boot", "complete"]
    # Our firmware has another variable store, and that is all that differs.
    assert [f.rule for f in found.findings if not f.ok] == ["tdx.rtmr0.cfv"]
    assert "rtmr0" not in found.values
    assert [f.rule for f in accounted(log, memory_mib=4096).findings if not f.ok] == [
        "tdx.rtmr0.td_hob",
        "tdx.rtmr0.cfv",
    ]


@needs_evidence
def test_with_the_firmware_file_the_whole_register_follows():
    path = os.environ.get("CASEMATE_OVMF_TDX", "")
    if not path:
        pytest.skip("CASEMATE_OVMF_TDX does not name Ubuntu's OVMF.fd (package ovmf 2025.02-3ubuntu2)")
    folder = EVIDENCE / "v4-b0c06f-ccel-tdreport"
    launch = Launch(firmware=Path(path).read_bytes(), event_log=(folder / "ccel2.bin").read_bytes(), memory_mib=2048)
    found = tdx.measure(launch)
    assert all(f.ok for f in found.findings)
    quote = quotes.parse((folder / "quote.bin").read_bytes())
    assert found.values["rtmr0"] == quote.body.rtmrs[0].hex()


def written(*events: tuple[int, int, bytes, bytes]) -> bytes:
    """A CCEL log of (register, type, digest, data)."""
    number = lambda value: value.to_bytes(4, "little")  # noqa: E731 - a word for a test
    header = b"Spec ID Event03\0" + bytes(4) + b"\x00\x02\x00\x02" + number(1) + b"\x0c\x00\x30\x00" + b"\x00"
    out = number(1) + number(3) + bytes(20) + number(len(header)) + header
    for register, kind, digest, data in events:
        out += number(register) + number(kind) + number(1) + b"\x0c\x00" + digest + number(len(data)) + data
    return out


def sha(data: bytes) -> bytes:
    return hashlib.sha384(data).digest()


def variable(name: str, value: bytes) -> bytes:
    wide = name.encode("utf-16-le")
    return bytes(16) + len(name).to_bytes(8, "little") + len(value).to_bytes(8, "little") + wide + value


def whole() -> list[tuple[int, int, bytes, bytes]]:
    found = images.sections(tdx_firmware())
    secure, order = variable("SecureBoot", b""), variable("BootOrder", b"\0\0")
    return [
        (1, 0x8000000B, sha(rtmr0.hand_off(found, 2048 * MiB)), b"\x09TdxTable\0"),
        (1, 0x8000000A, sha(tdx_firmware()[:0x4000]), b"\x29Fv(...)\0"),
        (1, 0x80000001, sha(secure), secure),
        (1, 0x00000004, sha(bytes(4)), bytes(4)),
        (1, 0x0000000A, sha(b"tables"), b"ACPI DATA"),
        (1, 0x80000002, sha(b"\0\0"), order),
    ]


def test_a_whole_log_gives_rtmr0():
    found = accounted(written(*whole()))
    assert all(f.ok for f in found.findings)
    assert found.values["rtmr0"] == measure.replay(event[2] for event in whole()).hex()


@pytest.mark.parametrize(
    ("index", "change", "rule"),
    [
        (0, lambda e: (1, e[1], sha(b"other memory"), e[3]), "td_hob"),
        (1, lambda e: (1, e[1], sha(b"keys enrolled"), e[3]), "cfv"),
        (2, lambda e: (1, e[1], sha(b"x"), e[3]), "variable"),
        (2, lambda e: (1, e[1], e[2], variable("SecureBoot", b"\1")), "variable"),
        (2, lambda e: (1, e[1], sha(b"cut"), b"cut"), "variable"),
        (3, lambda e: (1, e[1], sha(b"\1\0\0\0"), b"\1\0\0\0"), "separator"),
        (5, lambda e: (1, e[1], sha(b"\1\0"), e[3]), "boot"),
        (4, lambda e: (1, 0x1234, e[2], e[3]), "other"),
    ],
)
def test_an_event_that_is_not_as_it_should_be(index, change, rule):
    events = whole()
    events[index] = change(events[index])
    found = accounted(written(*events))
    assert [f.rule for f in found.findings if not f.ok] == [f"tdx.rtmr0.{rule}"]
    assert "rtmr0" not in found.values


def test_missing_events_are_named():
    found = accounted(written(*whole()[1:]))
    assert [f.found for f in found.findings if not f.ok] == ["td_hob"]


def test_the_log_of_another_kernel():
    found = accounted(written(*whole()), kernel=pe(), initrd=b"i", command_line="quiet")
    assert [f.rule for f in found.findings if not f.ok] == ["tdx.rtmr1.log", "tdx.rtmr2.log"]
    assert "rtmr0" not in found.values
