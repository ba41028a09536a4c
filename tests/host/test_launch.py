"""What a launch asks for, judged before anything starts: names, ports, volumes, sizes, platforms; what it leaves."""

import hashlib
import json
import os
import socket
import time
from pathlib import Path

import msgspec
import pytest

from casemate.boot import initdata
from casemate.drivers import accelerator, paths, qemu
from casemate.errors import Unusable
from casemate.host import launch, plan, ports, volumes, workloads
from casemate.host.guestimage.image import FilePaper, GuestImage, Paper
from casemate.host.launch import Options
from casemate.host.pool import Pool
from casemate.host.state import State
from casemate.schema import manifest as manifests

APP = "sha256:" + "1" * 64


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("CASEMATE_HOME", str(folder))
    monkeypatch.setenv(accelerator.ENVIRONMENT, "tcg")
    monkeypatch.setattr(qemu, "find", lambda: "qemu-system-x86_64")
    monkeypatch.setattr(Pool, "take", lambda self, target: target.mkdir(mode=0o700))
    monkeypatch.setattr(Pool, "refill", lambda self, count: None)
    return folder


@pytest.fixture
def image(tmp_path):
    folder = tmp_path / "image"
    folder.mkdir()
    files = {}
    for name in ("firmware.fd", "kernel", "initrd", "disk.img"):
        (folder / name).write_bytes(name.encode())
        files[name] = FilePaper(hashlib.sha256(name.encode()).hexdigest(), len(name))
    paper = Paper(
        name="guest", command_line="console=ttyS0", roothash="", files=files, recorded={}, measurements={}, lock="",
        lock_committed=True, inputs="", packages=[],
    )  # fmt: skip
    return GuestImage(folder, paper)


def manifest(**changes):
    key = "-----BEGIN PUBLIC KEY-----\n" + KEY + "\n-----END PUBLIC KEY-----\n"
    container = {
        "name": "one", "image": "registry.example/web@" + APP,
        "ports": [{"container": 443}, {"container": 53, "protocol": "udp"}],
        "mounts": [{"volume": "data", "path": "/data"}],
    }  # fmt: skip
    document = {
        "apiVersion": "casemate/v1", "name": "web", "app": APP, "brokers": [{"url": "https://10.0.2.2:1", "key": APP}],
        "signers": [{"key": key, "images": ["registry.example/*"]}], "containers": [container],
        "volumes": [{"name": "data", "app": APP, "key": "kbs:///web/volume/data", "minimum_mib": 32}],
        "minimum": {"cpus": 2, "memory_mib": 640},
    }  # fmt: skip
    return manifests.from_builtins({**document, **changes})


KEY = (
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEbf9+DsEYkp7C2R8IGpQoK7wN6ylZBnKyDFTT2oVkvDBLpwJKrTgGCzQSgVZFfX5S"
    "VbdWYtPjZhHUcCKEhmkx5A=="
)


def prepare(image, **options):
    return launch.prepare(manifest(), image, Options(**options), lambda text: None)


def test_a_prepared_workload(image, home):
    said = []
    workload = launch.prepare(manifest(), image, Options(publish=("0:443",)), said.append)
    state = workload.read()
    document = initdata.document(manifest())
    assert (state.name, state.state, state.vcpus, state.memory_mib) == ("web", "preparing", 2, 640)
    assert state.initdata_digest == hashlib.sha256(document).hexdigest()
    assert initdata.parse_disk((workload.folder / "initdata.img").read_bytes()) == document
    argv = plan.read(workload.folder).qemu
    assert f"hostfwd=tcp:127.0.0.1:{state.ports[0].host}-:443" in argv[argv.index("-netdev") + 1]
    disk = home / "volumes" / ("1" * 64) / "data.img"
    assert disk.stat().st_size == 64 << 20
    assert all(p.stat().st_mode & 0o77 == 0 for p in [disk, *workload.folder.iterdir()])
    assert "accelerator tcg" in said[0]
    assert workloads.settle(workload).state == "preparing"
    launch.discard(workload)
    assert not workload.folder.exists()
    assert disk.exists()


def test_overrides_change_the_line_and_the_measurement(image, tmp_path):
    other = tmp_path / "other"
    other.write_bytes(b"initrd two")
    first = launch.plan_job(manifest(), image, Options())
    second = launch.plan_job(manifest(), image, Options(extra_command_line="debug=1", initrd=other))
    assert second.launch.command_line == "console=ttyS0 debug=1"
    assert second.launch.initrd == b"initrd two"
    assert first.launch.initdata_digest == second.launch.initdata_digest


def test_the_measurement_of_an_unreadable_kernel_is_told_and_no_obstacle(image):
    state = prepare(image).read()
    assert state.measurement is None
    assert "can't be predicted" in state.message


def test_an_error_leaves_nothing(image, home, monkeypatch):
    monkeypatch.setattr(Pool, "take", lambda self, target: (_ for _ in ()).throw(Unusable("no TPM")))
    with pytest.raises(Unusable, match="no TPM"):
        prepare(image)
    monkeypatch.setattr(Pool, "take", lambda self, target: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        prepare(image)
    assert [p.name for p in (home / "workloads").iterdir()] == [".lock"]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"memory_mib": 512}, "at least 2 CPU and 640 MiB"),
        ({"vcpus": 1}, "at least 2 CPU"),
        ({"vcpus": 65}, "at most 64"),
        ({"publish": ("8080",)}, "is not"),
        ({"publish": ("8080:80",)}, "opens no port 80/tcp"),
        ({"publish": ("0:443/udp",)}, "opens no port 443/udp"),
        ({"publish": ("99999:443",)}, "at most 65535"),
        ({"publish": ("999.0.0.1:80:443",)}, "IPv4"),
        ({"publish": ("8080:443,hostfwd=tcp::1-:1",)}, "is not"),
        ({"volumes": {"other": Path("/x")}}, "no volume 'other'"),
        ({"volume_sizes": {"data": 31}}, "outside 32"),
        ({"volume_sizes": {"other": 64}}, "no volume 'other'"),
        ({"tee": "snp"}, "needs KVM"),
        ({"tee": "nope"}, "not known"),
        ({"volumes": {"data": Path("/dev/null")}}, "not a file"),
    ],
    ids=str,
)
def test_what_can_not_be(image, home, options, wanted):
    with pytest.raises(Unusable, match=wanted):
        prepare(image, **options)
    kept = home / "workloads"
    assert not kept.exists() or [p.name for p in kept.iterdir()] == [".lock"]


def test_names(image):
    first = prepare(image, volumes={"data": paths.home() / "a.img"})
    second = prepare(image, volumes={"data": paths.home() / "b.img"})
    assert (first.read().name, second.read().name) == ("web", "web-2")
    with pytest.raises(Unusable, match="named web already"):
        prepare(image, name="web")


def test_a_volume_serves_one_workload_at_a_time(image):
    first = prepare(image)
    with pytest.raises(Unusable, match="in use by workload web"):
        prepare(image)
    launch.discard(first)
    prepare(image)


def test_a_volume_keeps_its_size(image):
    launch.discard(prepare(image, volume_sizes={"data": 40}))
    workload = prepare(image)
    assert workload.read().volumes[0].size_mib == 40
    launch.discard(workload)
    with pytest.raises(Unusable, match="has 40 MiB already"):
        prepare(image, volume_sizes={"data": 64})


def test_a_volume_that_is_too_small(image, tmp_path):
    (tmp_path / "small.img").write_bytes(bytes(1 << 20))
    with pytest.raises(Unusable, match="at least 32"):
        prepare(image, volumes={"data": tmp_path / "small.img"})


def test_ports_in_use(image):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(Unusable, match="can't be published"):
            prepare(image, publish=(f"{taken.getsockname()[1]}:443",))
    other = State(id="i", name="o", state="running", ports=[ports.parse("47123:443")])
    with pytest.raises(Unusable, match="published by another workload"):
        ports.assign(("47123:443",), manifest(), [other])
    other.state = "stopped"
    assert ports.assign(("47123:443",), manifest(), [other])[0].host == 47123
    with pytest.raises(Unusable, match="another workload"):
        ports.assign(("47123:443", "47123:443"), manifest(), [])


def test_ports_parse():
    assert msgspec.to_builtins(ports.parse("0.0.0.0:5353:53/udp")) == {
        "address": "0.0.0.0", "host": 5353, "container": 53, "protocol": "udp"
    }  # fmt: skip


def test_firmware_by_role(image):
    with pytest.raises(Unusable, match="amdsev"):
        launch._firmware(image, "amdsev")
    (image.folder / "firmware.amdsev.fd").write_bytes(b"x")
    assert launch._firmware(image, "amdsev").name == "firmware.amdsev.fd"
    assert launch._firmware(image, "generic") == image.firmware


def test_snp_on_a_host_that_has_it(image, monkeypatch):
    monkeypatch.setenv(accelerator.ENVIRONMENT, "kvm")
    (image.folder / "firmware.amdsev.fd").write_bytes(b"x")
    workload = prepare(image, tee="snp", cpu_type="EPYC-Milan")
    argv = plan.read(workload.folder).qemu
    assert argv[argv.index("-cpu") + 1] == "EPYC-Milan"
    assert argv[argv.index("-bios") + 1].endswith("firmware.amdsev.fd")
    assert "tpm-crb,tpmdev=tpm0" not in argv
    assert not plan.read(workload.folder).vtpm


def test_remove_of_volumes_spares_files_elsewhere(home, tmp_path):
    mine = volumes.default_path(APP, "data")
    mine.parent.mkdir(parents=True)
    for path in (mine, tmp_path / "theirs.img"):
        path.write_bytes(b"x")
    disks = [volumes.VolumeDisk(name=p.stem, path=str(p), size_mib=1) for p in (mine, tmp_path / "theirs.img")]
    assert volumes.remove(disks, home / "volumes") == ["data"]
    assert (tmp_path / "theirs.img").exists()


def test_a_broken_plan(tmp_path):
    (tmp_path / plan.PLAN).write_text("{}")
    with pytest.raises(Unusable, match="can't be read"):
        plan.read(tmp_path)


def test_records_are_replaced_whole(image):
    workload = prepare(image)
    begun, seen = time.monotonic(), set()
    pid = os.fork()
    if pid == 0:
        state = workload.read()
        for number in range(300):
            state.message = "x" * number
            workload.write(state)
        os._exit(0)
    while os.waitpid(pid, os.WNOHANG) == (0, 0) and time.monotonic() - begun < 20:
        seen.add(json.loads((workload.folder / "state.json").read_text())["state"])
    assert seen == {"preparing"}
