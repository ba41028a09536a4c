"""Launch digests against the package sev-snp-measure; the machine; firmware that a launch must not believe."""

import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casemate.boot import ovmf
from casemate.errors import Malformed, Unusable
from casemate.schema.launch import Launch
from casemate.tee import room, snp
from casemate.tee.snp import firmware as firmwares
from casemate.tee.snp import vmsa
from casemate.testing.ovmf import FOOTER, HASHES, entry, firmware, metadata

LINE = "console=ttyS0 casemate.root=1:2:3"
MODELS = ["EPYC", "EPYC-v4", "EPYC-IBPB", "EPYC-Rome", "EPYC-Rome-v2", "EPYC-Milan", "EPYC-Milan-v2", "EPYC-Genoa",
          "EPYC-Genoa-v1", "EPYC-Turin"]  # fmt: skip


def oracle(folder: Path, launch: Launch) -> str:
    """The digest by sev-snp-measure, which reads files."""
    guest = pytest.importorskip("sevsnpmeasure.guest")
    from sevsnpmeasure.sev_mode import SevMode
    from sevsnpmeasure.vcpu_types import CPU_SIGS

    for name in ("firmware", "kernel", "initrd"):
        (folder / name).write_bytes(getattr(launch, name))
    digest = guest.calc_launch_digest(
        SevMode.SEV_SNP, launch.vcpus, CPU_SIGS[launch.cpu_type], str(folder / "firmware"), str(folder / "kernel"),
        str(folder / "initrd"), launch.command_line, 0x1,
    )  # fmt: skip
    return digest.hex()


def launch(image: bytes, **changes) -> Launch:
    base = Launch(firmware=image, kernel=b"K" * 5000, initrd=b"I" * 77, command_line=LINE, cpu_type="EPYC-v4")
    return msgspec.structs.replace(base, **changes)


@pytest.mark.parametrize("vcpus", [1, 2, 3, 8, 64])
def test_vcpus_against_the_oracle(tmp_path, vcpus):
    wanted = launch(firmware(), vcpus=vcpus)
    assert snp.measure(wanted).values == {"measurement": oracle(tmp_path, wanted)}


@pytest.mark.parametrize("cpu_type", MODELS)
def test_models_against_the_oracle(tmp_path, cpu_type):
    wanted = launch(firmware(), cpu_type=cpu_type, vcpus=2)
    assert snp.measure(wanted).values["measurement"] == oracle(tmp_path, wanted)


@pytest.mark.parametrize(
    "changes", [{"command_line": ""}, {"initrd": b""}, {"command_line": "ünï"}, {"kernel": b"k"}], ids=str
)
def test_other_files_against_the_oracle(tmp_path, changes):
    wanted = launch(firmware(pages=3), **changes)
    assert snp.measure(wanted).values["measurement"] == oracle(tmp_path, wanted)
    assert snp.measure(wanted) != snp.measure(launch(firmware(pages=3)))


def test_the_real_firmware_against_the_oracle(tmp_path):
    path = os.environ.get("CASEMATE_OVMF_AMDSEV", "")
    if not path:
        pytest.skip("CASEMATE_OVMF_AMDSEV does not name an OVMF.amdsev.fd (Debian package ovmf-amdsev)")
    real = Path(path).read_bytes()
    for vcpus, cpu_type in ((1, "EPYC-v4"), (4, "EPYC-Milan"), (64, "EPYC-Genoa")):
        wanted = launch(real, vcpus=vcpus, cpu_type=cpu_type)
        assert snp.measure(wanted).values["measurement"] == oracle(tmp_path, wanted)


def test_initdata_is_in_host_data_and_not_in_the_digest():
    wanted = launch(firmware(), initdata_digest=b"\x01" * 32)
    assert snp.measure(wanted) == snp.measure(launch(firmware()))
    assert "host-data=" + "AQEB" in snp.machine(wanted).objects[1]


def test_vmsa_equals_the_oracles():
    theirs = pytest.importorskip("sevsnpmeasure.vmsa")
    from sevsnpmeasure.sev_mode import SevMode
    from sevsnpmeasure.vcpu_types import CPU_SIGS

    for name in MODELS:
        both = list(theirs.VMSA(SevMode.SEV_SNP, 0x80B004, CPU_SIGS[name], 1).pages(2))
        assert both == [vmsa.page(eip, vmsa.signature(name)) for eip in (vmsa.RESET_EIP, 0x80B004)]


@pytest.mark.parametrize("name", ["host", "EPYC-v", "EPYC-v4-v4x", "Skylake", "", "EPYC-v4444"])
def test_unknown_model(name):
    with pytest.raises(Unusable, match="signature"):
        vmsa.signature(name)


@pytest.mark.parametrize("vcpus", [0, -1, 65])
def test_number_of_vcpus(vcpus):
    with pytest.raises(Unusable, match="1 to 64"):
        snp.measure(launch(firmware(), vcpus=vcpus))


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"hashes": None}, "kernel's hashes"),
        ({"hashes": 0}, "kernel's hashes"),
        ({"hashes": 0x820C00}, "kernel's hashes"),
        ({"hashes": 0x810FC0}, "does not fit"),
        ({"block": metadata(((0x800000, 0x1000, 1),))}, "kernel's hashes"),
        ({"eip": None}, "further vCPUs"),
    ],
)
def test_firmware_that_can_not_do_it(changes, wanted):
    with pytest.raises(Unusable, match=wanted):
        snp.measure(launch(firmware(**changes), vcpus=2))


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"block": metadata((), signature=b"ASEW")}, "not known"),
        ({"block": metadata((), version=2)}, "not known"),
        ({"block": metadata((), size=12)}, "sections"),
        ({"block": metadata((), count=65)}, "sections"),
        ({"block": metadata((), count=0xFFFFFFFF, size=4)}, "sections"),
        ({"block": metadata(((0x800001, 0x1000, 1),))}, "section at"),
        ({"block": metadata(((0x800000, 0x1001, 1),))}, "section at"),
        ({"block": metadata(((0x800000, 0xFFFFF000, 1),))}, "section at"),
        ({"block": metadata(((0x800000, 0x2000, 3),))}, "one page"),
        ({"block": metadata(((0x800000, 0x1000, 9),))}, "type 0x9"),
        ({"offset": 0}, "before the end"),
        ({"offset": 1 << 31}, "before the end"),
        ({"offset": 17}, "not known|wanted"),
        ({"table_size": 17}, "GUID table"),
        ({"table_size": 65535}, "GUID table"),
    ],
    ids=str,
)
def test_malformed_firmware(changes, wanted):
    with pytest.raises(Malformed, match=wanted):
        firmwares.parse(firmware(**changes))


@pytest.mark.parametrize("size", [17, 0, 60000])
def test_malformed_table_entries(size):
    bad = entry("00000000-0000-0000-0000-00000000000a", b"xxxx", size=size)
    with pytest.raises(Malformed):
        ovmf.table(firmware(more=[bad]))


def test_twice_the_same_entry():
    with pytest.raises(Malformed, match="one too many"):
        ovmf.table(firmware(more=[entry(HASHES, b"xxxx")]))


@pytest.mark.parametrize("data", [b"", b"x", bytes(4095), bytes(4097), bytes((64 << 20) + 4096)], ids=len)
def test_sizes_of_firmware(data):
    with pytest.raises(Malformed, match="pages"):
        ovmf.table(data)


def test_no_table_at_all():
    assert firmwares.parse(bytes(8192)) == (0, 0, ())


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_broken_metadata_raises_only_malformed(data):
    raw = bytearray(firmware(pages=2))
    for _ in range(data.draw(st.integers(1, 6))):
        back = data.draw(st.one_of(st.integers(1, 160), st.integers(900, 1024)))
        raw[-back] = data.draw(st.integers(0, 255))
    try:
        snp.measure(launch(bytes(raw)))
    except (Malformed, Unusable):
        return


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=50, max_size=600))
def test_any_tail_raises_only_malformed(tail):
    raw = bytes(8192) + tail + entry(FOOTER, b"", size=len(tail) + 18) + bytes(32)
    raw = bytes(-len(raw) % 4096) + raw
    try:
        firmwares.parse(raw)
    except Malformed:
        return


def test_requests_and_a_launch_of_nothing():
    for name in ("snp", "tdx"):
        assert room(name).request(b"n", b"").report_data == b"n"
    with pytest.raises(Unusable, match="no firmware"):
        room("tdx").measure(Launch())
