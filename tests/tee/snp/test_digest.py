"""Launch digests of other monitors, and published ones: vectors, and a report whose inputs were published with it."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from casemate.boot import ovmf
from casemate.errors import Unusable
from casemate.schema.launch import Launch
from casemate.tee import snp
from casemate.tee.snp import digest, report, vmsa
from casemate.tee.snp import firmware as firmwares
from casemate.tee.snp.firmware import Kind, Section
from casemate.testing import published
from casemate.testing.ovmf import firmware

EVIDENCE = published.folder("snp")
needs_evidence = pytest.mark.skipif(EVIDENCE is None, reason="the published evidence set is not on this machine")
NOTHING = hashlib.sha256(b"").digest()


def oracle(folder: Path, image: bytes, vmm: str, *, vcpus: int, features: int = 1) -> str:
    guest = pytest.importorskip("sevsnpmeasure.guest")
    from sevsnpmeasure.sev_mode import SevMode
    from sevsnpmeasure.vcpu_types import CPU_SIGS
    from sevsnpmeasure.vmm_types import VMMType

    (folder / "firmware").write_bytes(image)
    return guest.calc_launch_digest(
        SevMode.SEV_SNP, vcpus, CPU_SIGS["EPYC-v4"], str(folder / "firmware"), "", "", "", features,
        vmm_type=VMMType[vmm],
    ).hex()  # fmt: skip


@pytest.mark.parametrize("vmm", ["QEMU", "ec2", "gce"])
@pytest.mark.parametrize("vcpus", [1, 3])
@pytest.mark.parametrize("features", [0x1, 0x21])
def test_monitors_without_a_kernel_against_the_oracle(tmp_path, vmm, vcpus, features):
    image = firmware()
    wanted = oracle(tmp_path, image, vmm, vcpus=vcpus, features=features)
    launch = Launch(firmware=image, vcpus=vcpus, vmm=vmm.lower(), guest_features=features)
    assert snp.measure(launch).values == {"measurement": wanted}


def test_a_real_firmware_on_every_monitor(tmp_path):
    path = os.environ.get("CASEMATE_OVMF_AMDSEV", "")
    if not path:
        pytest.skip("CASEMATE_OVMF_AMDSEV does not name an OVMF.amdsev.fd (Debian package ovmf-amdsev)")
    image = Path(path).read_bytes()
    for vmm in ("QEMU", "ec2", "gce"):
        found = snp.measure(Launch(firmware=image, vcpus=2, vmm=vmm.lower())).values["measurement"]
        assert found == oracle(tmp_path, image, vmm, vcpus=2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vmm": "xen"}, "monitor"),
        ({"vmm": "ec2", "kernel": b"k"}, "starts no kernel"),
        ({"guest_features": 0x20}, "without SNP"),
        ({"guest_features": 1 << 64 | 1}, "without SNP"),
        ({"firmware": b""}, "no firmware"),
        ({"image": b"EIF"}, "whole image"),
        ({"event_log": b"log"}, "event log"),
    ],
)
def test_launches_that_are_not_measured(changes, message):
    with pytest.raises(Unusable, match=message):
        snp.measure(Launch(**{"firmware": firmware(), **changes}))


def vectors() -> list[dict]:
    file = EVIDENCE / "vectors-launch-digest" / "vectors.json" if EVIDENCE else None
    return json.loads(file.read_text()) if file and file.is_file() else []


def recomputed(vector: dict) -> str:
    """The digest of a vector by the room's own pieces: `/dev/null` is an empty file, null is none."""
    image = (EVIDENCE / "vectors-launch-digest" / vector["ovmf"]).read_bytes()
    start = digest.pages(digest.START, ovmf.address(image), image)
    if vector["kind"] == "ovmf_hash":
        return start.hex()
    found, line = firmwares.parse(image), vector["append"] or ""
    has_kernel = vector["kernel"] is not None
    if has_kernel and not found.hashes_table:
        raise Unusable("this firmware does not check a kernel's hashes")
    snp_mode = vector["mode"] == "SEV_SNP"
    features = vector["guest_features"] if snp_mode else 0
    monitor = snp_monitor(vector["vmm"])
    areas = [
        vmsa.page(found.reset_eip if n else vmsa.RESET_EIP, vector["vcpu_sig"] or 0, features, monitor)
        for n in range(vector["vcpus"])
    ]
    if not snp_mode:
        table = measure_module().hashes_table(NOTHING, NOTHING, line) if has_kernel else b""
        return digest.before_snp(image, table, [] if vector["mode"] == "SEV" else areas).hex()
    if vector["ovmf_hash_override"]:
        start = bytes.fromhex(vector["ovmf_hash_override"])
    hashes = None
    if has_kernel:
        hashes = measure_module().hashes_page_from(NOTHING, NOTHING, line, found.hashes_table & 0xFFF)
    done = digest.sections(
        start, found.sections, hashes, cpuid_last=monitor is vmsa.EC2, memory_measured=monitor is not vmsa.GCE
    )
    return digest.vcpus(done, areas).hex()


def measure_module():
    from importlib import import_module

    return import_module("casemate.tee.snp.measure")


def snp_monitor(name: str) -> vmsa.Monitor:
    return measure_module().MONITORS[name.lower()]


@needs_evidence
@pytest.mark.parametrize("number", range(len(vectors())))
def test_published_vectors(number):
    vector = vectors()[number]
    if vector.get("expected_error"):
        with pytest.raises(Unusable):
            recomputed(vector)
    else:
        assert recomputed(vector) == vector["expected"]


@needs_evidence
def test_a_report_whose_inputs_were_published_with_it():
    folder = EVIDENCE / "milan-v3-dstack-measured"
    inputs = json.loads((folder / "measurement_inputs.json").read_text())
    found = [Section(Kind(s["section_type"]), s["gpa"], s["size"]) for s in inputs["ovmf_sections"]]
    genuine = report.parse((folder / "report.bin").read_bytes())
    mr_config = (folder / "mr_config.txt").read_bytes()
    assert hashlib.sha256(b"dstack-mr-config-v3:\0" + mr_config).digest() == genuine.host_data

    def measured(line: str) -> bytes:
        hashes = measure_module().hashes_page_from(
            bytes.fromhex(inputs["kernel_hash"]), bytes.fromhex(inputs["initrd_hash"]), line,
            inputs["sev_hashes_table_gpa"] & 0xFFF,
        )  # fmt: skip
        done = digest.sections(bytes.fromhex(inputs["ovmf_hash"]), found, hashes)
        areas = [
            vmsa.page(
                inputs["sev_es_reset_eip"] if number else vmsa.RESET_EIP,
                vmsa.signature(inputs["vcpu_type"]),
                inputs["guest_features"],
            )
            for number in range(inputs["vcpus"])
        ]
        return digest.vcpus(done, areas)

    assert measured(inputs["base_cmdline"]) == genuine.measurement
    assert measured(inputs["base_cmdline"] + " ") != genuine.measurement
