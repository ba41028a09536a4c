"""Launches put together from files, as `casemate measure` does."""

import hashlib

import pytest

from casemate.errors import Malformed, Unusable
from casemate.host import guestimage, measuring
from casemate.host.guestimage.image import describe
from casemate.host.measuring import Sources
from casemate.tee import room
from casemate.testing import ovmf


@pytest.fixture
def files(tmp_path):
    """Files by name, each with its name as content."""

    def make(*names):
        found = {}
        for name in names:
            found[name] = tmp_path / name
            found[name].write_bytes(name.encode())
        return found

    return make


@pytest.fixture
def image(tmp_path, monkeypatch):
    """A small guest image in the place of the locked one."""
    folder = tmp_path / "image"
    folder.mkdir()
    for name in ("firmware.fd", "kernel", "initrd", "disk.img"):
        (folder / name).write_bytes(b"image's " + name.encode())
    made = describe(
        folder, name="guest", command_line="locked", roothash="", recorded={"pcr0": "aa"}, measurements={}, lock="",
        lock_committed=True, inputs="", packages=[],
    )  # fmt: skip
    monkeypatch.setattr(guestimage, "ensure", lambda progress: made)
    return made


def launch(tee="tpm", **options):
    return measuring.launch(Sources(**options), room(tee), lambda _: None)


def test_files_alone(files):
    given = files("firmware", "kernel", "initrd", "initdata", "event_log")
    found, origin = launch(**given, command_line="quiet", vcpus=3, cpu_type="EPYC-v4", vmm="ec2", guest_features=0x21)
    assert origin == "files"
    assert (found.firmware, found.kernel, found.initrd, found.event_log) == (
        b"firmware",
        b"kernel",
        b"initrd",
        b"event_log",
    )
    assert found.initdata_digest == hashlib.sha256(b"initdata").digest()
    assert (found.vcpus, found.cpu_type, found.vmm, found.guest_features) == (3, "EPYC-v4", "ec2", 0x21)
    assert (found.command_line, found.recorded) == ("quiet", {})


def test_the_guest_image_and_its_parts_replaced(image, files):
    found, origin = launch(memory_mib=2048)
    assert str(image.folder) in origin
    assert (found.kernel, found.command_line, found.recorded) == (b"image's kernel", "locked", {"pcr0": "aa"})
    assert found.memory_mib == 2048
    other, _ = launch(**files("firmware", "initrd"), command_line="mine")
    assert (other.firmware, other.initrd, other.command_line) == (b"firmware", b"initrd", "mine")
    assert other.recorded == {}, "registers recorded with another firmware"


def test_a_platform_with_a_firmware_of_its_own(image, files):
    with pytest.raises(Unusable, match="'amdsev'"):
        launch("snp")
    (image.folder / "firmware.amdsev.fd").write_bytes(b"sev")
    found, _ = launch("snp")
    assert (found.firmware, found.recorded) == (b"sev", {})
    (image.folder / "own.fd").write_bytes(ovmf.firmware())
    assert launch("snp", firmware=image.folder / "own.fd")[0].firmware == ovmf.firmware()
    with pytest.raises(Malformed, match="firmware"):  # said before the image is asked for
        launch("snp", **files("firmware"))


def test_nothing_but_a_firmware(files):
    found, _ = launch("snp", **files("firmware"), firmware_only=True)
    assert (found.firmware, found.kernel, found.command_line) == (b"firmware", b"", "")


def test_the_command_line_from_a_file(files, tmp_path):
    (tmp_path / "line").write_bytes(b"console=ttyS0 \xc3\xbc\n")
    found, _ = launch(**files("kernel"), command_line_file=tmp_path / "line")
    assert found.command_line == "console=ttyS0 ü"
    (tmp_path / "line").write_bytes(b"\xff")
    with pytest.raises(Unusable, match="UTF-8"):
        launch(**files("kernel"), command_line_file=tmp_path / "line")


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (("kernel", "image"), {}, "name one"),
        (("kernel",), {"firmware_only": True}, "name one"),
        (("image", "initrd"), {}, "need a kernel"),
        (("firmware",), {"firmware_only": True, "command_line": "x"}, "need a kernel"),
        (("kernel", "command_line_file"), {"command_line": "x"}, "twice"),
    ],
)
def test_what_does_not_go_together(files, names, options, message):
    with pytest.raises(Unusable, match=message):
        launch(**files(*names), **options)


def test_files_are_bounded_and_not_empty(tmp_path, monkeypatch):
    monkeypatch.setitem(measuring._LIMITS, "kernel", 4)
    (tmp_path / "kernel").write_bytes(b"12345")
    with pytest.raises(Malformed, match="more than"):
        launch(kernel=tmp_path / "kernel")
    (tmp_path / "kernel").write_bytes(b"")
    with pytest.raises(Unusable, match="is empty"):
        launch(kernel=tmp_path / "kernel")
    with pytest.raises(Unusable, match="No such file"):
        launch(kernel=tmp_path / "absent")
