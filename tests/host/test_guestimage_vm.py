"""The guest image, booted: registers as predicted, the promised hardening, and the initrd's refusals."""

from __future__ import annotations

import gzip
import hashlib
import os
import struct

import pytest

from casemate.boot import eventlog
from casemate.host.guestimage import GuestImage
from casemate.testing import boots

pytestmark = [pytest.mark.vm, pytest.mark.timeout(600)]

DOCUMENT = b'version = "0.1.0"\nalgorithm = "sha256"\n\n[data]\n"casemate.json" = "{}"\n'


@pytest.fixture(scope="module")
def image() -> GuestImage:
    return boots.probe_image()


def test_registers_are_the_predicted_ones_and_the_guest_is_hardened(image: GuestImage) -> None:
    boot = boots.boot(image, boots.initdata_disk(DOCUMENT))
    assert boot.facts, boot.console[-5:]
    facts = boot.facts
    assert bytes.fromhex(facts["initdata"]) == DOCUMENT

    measured = image.launch(hashlib.sha256(DOCUMENT).digest())
    from casemate.tee import room

    for name, value in room("tpm").measure(measured).values.items():
        assert facts["pcrs"][int(name.removeprefix("pcr"))] == value, name
    replayed = eventlog.replay(eventlog.parse(bytes.fromhex(facts["event_log"])), "sha256")
    # PCR 8 is extended by the initrd, PCR 10 by the kernel's own list; neither is in the firmware's log.
    for number in (0, 1, 2, 3, 4, 5, 6, 7, 9):
        assert facts["pcrs"][number] == replayed[number].hex(), number

    assert facts["settings"] == {
        "sysrq": "0", "modules_disabled": "1", "kexec_load_disabled": "1", "dmesg_restrict": "1", "kptr_restrict": "2",
    }  # fmt: skip
    assert "[integrity]" in facts["lockdown"]
    assert "[disabled]" in facts["hibernation"] or facts["hibernation"].startswith("error")
    assert {"dm_crypt", "dm_integrity", "aegis128_aesni", "nf_tables", "overlay"} <= set(facts["modules"])
    root = [mount for mount in facts["mounts"] if mount[0] == "/"]
    assert [mount[1] for mount in root] == ["erofs"]
    assert root[0][2].startswith("ro")


def _raw(stream: bytes, length: int | None = None, mark: bytes = b"initdata") -> bytes:
    disk = mark + struct.pack("<Q", len(stream) if length is None else length) + stream
    return disk + bytes(-len(disk) % 512)


@pytest.mark.parametrize(
    ("disk", "sentence"),
    [
        (None, "there is no disk initdata"),
        pytest.param(bytes(512), "the initdata disk does not begin with its mark", marks=pytest.mark.soak),
        pytest.param(_raw(b"", 0), "the initdata disk gives an impossible length", marks=pytest.mark.soak),
        (_raw(b"x" * 64, 1 << 40), "the initdata disk gives an impossible length"),
        pytest.param(_raw(b"no gzip at all"), "the initdata is not a gzip stream", marks=pytest.mark.soak),
        (_raw(gzip.compress(bytes((4 << 20) + 1))), "the initdata is"),
        pytest.param(
            _raw(os.urandom(4 << 20)), "the initdata disk is empty or larger than 4 MiB", marks=pytest.mark.soak
        ),
    ],
    ids=["absent", "no mark", "empty", "length", "no gzip", "bomb", "large"],
)
def test_initdata_that_is_not_as_it_must_be_stops_the_machine(
    image: GuestImage, disk: bytes | None, sentence: str
) -> None:
    boot = boots.boot(image, disk)
    assert boot.facts is None
    assert boot.sentence().startswith(sentence), boot.console[-5:]
    assert boot.exit_code == 0  # powered off, not killed
