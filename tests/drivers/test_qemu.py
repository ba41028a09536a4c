"""Golden command lines: one code for every TEE. REGOLD=1 writes the files anew; people judge the diff."""

import os
from pathlib import Path

import pytest

from casemate.drivers import accelerator, qemu
from casemate.errors import Unusable
from casemate.schema.launch import Launch, Machine
from casemate.tee import room

VECTORS = Path(__file__).parents[1] / "vectors" / "qemu"
LAUNCH = Launch(command_line="console=ttyS0 casemate.root=1:ab:cd", initdata_digest=bytes(range(32)), memory_mib=768)


def vm(machine: Machine, chosen: str, **changes) -> qemu.Vm:
    image = Path("/image")
    disks = (
        qemu.Disk(image / "disk.img", "root"),
        qemu.Disk(Path("/home/workloads/0a1b/initdata.img"), "initdata"),
        qemu.Disk(Path('/home/volumes/a,"b/data.img'), "vol-data", read_only=False),
    )
    known = {
        "name": "casemate-0a1b", "machine": machine, "accelerator": chosen, "firmware": image / "firmware.fd",
        "kernel": image / "kernel", "initrd": image / "initrd", "command_line": LAUNCH.command_line, "vcpus": 1,
        "memory_mib": LAUNCH.memory_mib, "disks": disks, "tpm_socket": "tpm.sock" if machine.vtpm else None,
        "forwards": (qemu.Forward("127.0.0.1", 8443, 443), qemu.Forward("0.0.0.0", 5353, 53, "udp")),
    }  # fmt: skip
    return qemu.Vm(**{**known, **changes})


def lines(argv: list[str]) -> str:
    """One option a line, for readable diffs."""
    text = argv[0]
    for word in argv[1:]:
        text += f"\n{word}" if word.startswith("-") and len(word) > 1 else f" {word}"
    return text + "\n"


@pytest.mark.parametrize(
    ("tee", "chosen"),
    [("tpm", accelerator.TCG), ("tpm", accelerator.KVM), ("snp", accelerator.KVM), ("tdx", accelerator.KVM)],
)
def test_golden(tee, chosen):
    made = lines(qemu.arguments(vm(room(tee).machine(LAUNCH), chosen)))
    golden = VECTORS / f"{tee}-{chosen}.txt"
    if os.environ.get("REGOLD"):
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(made)
    assert made == golden.read_text()


@pytest.mark.parametrize("tee", ["snp", "tdx"])
def test_hardware_rooms_refuse_emulation(tee):
    with pytest.raises(Unusable, match="needs KVM"):
        qemu.arguments(vm(room(tee).machine(LAUNCH), accelerator.TCG))


def test_a_vtpm_must_be_there():
    with pytest.raises(Unusable, match="vTPM"):
        qemu.arguments(vm(Machine(machine="q35", vtpm=True), accelerator.TCG, tpm_socket=None))


@pytest.mark.parametrize("serials", [("root", "root"), ("root", "x" * 21), ("root", "a,b"), ("",)])
def test_serials(serials):
    disks = tuple(qemu.Disk(Path("/d"), serial) for serial in serials)
    with pytest.raises(Unusable, match="serials"):
        qemu.arguments(vm(Machine(machine="q35"), accelerator.TCG, disks=disks))


@pytest.mark.parametrize("address", ["localhost", "::1", "127.0.0.1,hostfwd=tcp::1-:1"])
def test_only_ipv4_addresses_reach_the_line(address):
    with pytest.raises(ValueError, match=r"Expected 4 octets|Only decimal digits"):
        qemu.arguments(vm(Machine(machine="q35"), accelerator.TCG, forwards=(qemu.Forward(address, 1, 1),)))


@pytest.mark.parametrize("found", [(7, 2), (9, 2)])
def test_old_qemu_is_refused(found):
    with pytest.raises(Unusable, match="too old"):
        qemu.demand(found)


def test_new_qemu_is_taken():
    qemu.demand((10, 0))
    qemu.demand((11, 1))


def test_version_of_a_program(tmp_path):
    program = tmp_path / "qemu"
    program.write_text("#!/bin/sh\necho QEMU emulator version 10.0.2 '(Debian 1:10.0.2)'\n")
    program.chmod(0o755)
    assert qemu.version(str(program)) == (10, 0)
    program.write_text("#!/bin/sh\necho nothing\n")
    with pytest.raises(Unusable, match="does not say"):
        qemu.version(str(program))
    with pytest.raises(Unusable, match="does not run"):
        qemu.version(str(tmp_path / "absent"))


def test_missing_program(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unusable, match="not installed"):
        qemu.find()


@pytest.mark.tools
def test_a_real_qemu_takes_the_tpm_line(tmp_path):
    """QEMU parses everything and then misses the kernel: each option and device is known to it."""
    import subprocess

    try:
        program = qemu.find()
    except Unusable as error:
        pytest.skip(str(error))
    (tmp_path / "firmware.fd").write_bytes(bytes(1 << 20))
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(4096))
    machine = Machine(machine="q35")
    wanted = vm(machine, accelerator.TCG, firmware=tmp_path / "firmware.fd", kernel=tmp_path / "absent",
                forwards=(), disks=(qemu.Disk(disk, "root"),))  # fmt: skip
    done = subprocess.run(
        qemu.arguments(wanted, program), cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1
    assert "could not open kernel file" in done.stderr
    assert done.stderr.count("\n") == 1
