"""Volumes on the guest's own kernel: attacked in every way that the threat model names, and killed in mid-write."""

import json

import pytest

from casemate.drivers.qemu import Disk
from casemate.testing import boots

pytestmark = [pytest.mark.vm, pytest.mark.timeout(600)]
MIB = 1 << 20


@pytest.fixture(scope="module")
def image(request):
    return boots.probe_image(request.path.with_name("volume_probe.py"))


def blank(path, mebibytes=48):
    with path.open("wb") as stream:
        stream.truncate(mebibytes * MIB)
    return path


def boot(image, order, *disks, kill_at=""):
    volumes = tuple(Disk(path, f"vol-{name}", read_only=False) for name, path in disks)
    document = json.dumps(order).encode()
    done = boots.boot(image, boots.initdata_disk(document), disks=volumes, kill_at=kill_at, timeout=240)
    assert done.facts is not None, done.console[-8:]
    return done.facts


def test_attacks(image, tmp_path):
    facts = boot(image, {"do": "attack"}, ("one", blank(tmp_path / "one")), ("two", blank(tmp_path / "two")))
    came = {name: fact["is"] for name, fact in facts.items() if isinstance(fact, dict)}
    assert facts["first"]["then"] == [101, 102, "0o40755"]
    assert facts["again"]["then"] == "the content"
    assert facts["grants"] == 1
    assert facts["plain text on the disk"] is False
    # What the host writes into the first 4 KiB is never read.
    assert facts["first 4 KiB replaced"]["then"] == "the content"
    assert came["foreign disk"] == ["volume.foreign_or_damaged"]
    assert came["blank disk"] == ["volume.blank"]
    assert came["null cipher header"] == ["volume.luks_header"]
    assert came["journal damaged"] == ["volume.foreign_or_damaged"]
    assert came["bits flipped"] != "open" or facts["bits flipped"]["then"] == "Input/output error"
    assert facts["restored"]["then"] == "the content"
    assert came["other key"] == ["volume.foreign_or_damaged"]
    assert came["other size"] == ["volume.size"]
    assert came["too small"] == ["volume.minimum"]
    assert came["no disk"] == ["volume.disk"]
    for name, fact in facts.items():
        if isinstance(fact, dict):
            assert fact["troubles"] == [], name
            assert fact["left"] == [], name


def test_a_volume_survives_the_death_of_its_machine(image, tmp_path):
    disk = blank(tmp_path / "one")
    known = boot(image, {"do": "crash"}, ("one", disk), kill_at="casemate-busy 3")
    found = boot(image, {"do": "reopen", **known}, ("one", disk))
    assert found["is"] == "open"
    assert found["then"]["kept"] is True
