"""Process 1 of a guest that attacks its own volumes: the agent's volume code on the guest's kernel, one JSON line out.

The initdata carries what to do: {"do": "attack"} or {"do": "reopen", "key": .., "record": ..}.
"""

import ctypes
import json
import os
import sys
import traceback
from pathlib import Path
from types import SimpleNamespace

sys.path[:0] = ["/usr/lib/casemate", "/usr/lib/python3/dist-packages"]

from casemate.errors import CasemateError, Refused  # noqa: E402 - the path comes first
from casemate.guest.volumes import Volumes  # noqa: E402 - the path comes first
from casemate.schema.manifest import Volume  # noqa: E402 - the path comes first
from casemate.wire.encoding import b64  # noqa: E402 - the path comes first

FOLDER = Path("/run/casemate/volumes")
APP = "sha256:" + "0" * 64


class Keys:
    """A broker's part: one key, one grant, one record."""

    def __init__(self, key=None, record=None):
        self.key, self.record, self.grants = key or b64(os.urandom(32)), record, 0

    def open_volume(self, name, size):
        self.grants += self.record is None
        grant = None if self.record else f"grant {self.grants}"
        return {"key": self.key, "initialised": bool(self.record), "format_grant": grant, "record": self.record}

    def volume_initialised(self, name, grant, document):
        assert grant == f"grant {self.grants}"
        self.record = document


def manifest(name, minimum=16):
    volume = Volume(name=name, app=APP, key="kbs:///a/b/c", minimum_mib=minimum)
    container = SimpleNamespace(mounts=(SimpleNamespace(volume=name),), user="101:102")
    return SimpleNamespace(volumes=(volume,), containers=(container,))


def left():
    """What a volume that was not opened must not leave behind."""
    loops = [p.name for p in Path("/sys/block").glob("loop*") if (p / "loop").exists()]
    mappings = [p.name for p in Path("/sys/block").glob("dm-*") if (p / "dm/name").read_text().startswith("casemate-")]
    return mappings + loops


def attempt(keys, name, then=None, **more):
    """What came of opening the volume: "open", or the rules of the refusal; `then(path)` runs while it is open."""
    volumes = Volumes(FOLDER, keys)
    try:
        path = volumes.open_all(manifest(name, **more))[name]
        found = {"is": "open", "then": then(path) if then else None}
    except Refused as refusal:
        found = {"is": [finding.rule for finding in refusal.findings]}
    except CasemateError as error:
        found = {"is": f"{type(error).__name__}: {error}"}
    found["troubles"] = volumes.close()
    found["left"] = left()
    return found


def disk(name):
    from casemate.drivers import dm

    return Path(dm.disk(f"vol-{name}"))


def put(name, data, offset=0):
    with disk(name).open("r+b") as device:
        device.seek(offset)
        device.write(data)
        os.fsync(device.fileno())


def write(path):
    (path / "hello").write_text("the content")
    (path / "big").write_bytes(os.urandom(4 << 20))
    status = path.stat()
    return [status.st_uid, status.st_gid, oct(status.st_mode)]


def read(path):
    return (path / "hello").read_text()


def read_big(path):
    try:
        return len((path / "big").read_bytes())
    except OSError as error:
        return error.strerror


def attack():
    facts, ours, other = {}, Keys(), Keys()
    facts["first"] = attempt(ours, "one", write)
    facts["foreign made"] = attempt(other, "two", write)
    facts["again"] = attempt(ours, "one", read)
    facts["grants"] = ours.grants
    whole, foreign = disk("one").read_bytes(), disk("two").read_bytes()
    facts["plain text on the disk"] = b"the content" in whole

    put("one", b"LUKS\xba\xbe\0\2" + os.urandom(4088))
    facts["first 4 KiB replaced"] = attempt(ours, "one", read)
    put("one", foreign)
    facts["foreign disk"] = attempt(ours, "one", read)
    put("one", bytes(len(whole)))
    facts["blank disk"] = attempt(ours, "one", read)
    put("one", null_cipher_header() + whole[16 << 20 :])
    facts["null cipher header"] = attempt(ours, "one", read)
    put("one", whole)
    put("one", os.urandom(64 << 10), offset=4096)
    facts["journal damaged"] = attempt(ours, "one", read)
    flipped = bytearray(whole)
    for position in range(len(whole) // 8, len(whole), 32 << 10):
        flipped[position] ^= 1
    put("one", bytes(flipped))
    facts["bits flipped"] = attempt(ours, "one", read_big)
    put("one", whole)
    facts["restored"] = attempt(ours, "one", read)
    facts["other key"] = attempt(Keys(record=ours.record), "one", read)
    smaller = {**ours.record, "size": ours.record["size"] + 4096}
    facts["other size"] = attempt(Keys(ours.key, smaller), "one", read)
    facts["too small"] = attempt(Keys(), "one", minimum=4096)
    facts["no disk"] = attempt(Keys(), "three")
    facts["replay of the whole disk is not detected"] = attempt(ours, "one", read)
    print("casemate-probe " + json.dumps(facts), flush=True)


def null_cipher_header():
    """The start of a LUKS2 disk whose segment says cipher_null-ecb."""
    area = {
        "segments": {"0": {"type": "crypt", "offset": "16777216", "size": "dynamic", "encryption": "cipher_null-ecb"}}
    }
    return (b"LUKS\xba\xbe\0\2".ljust(4096, b"\0") + json.dumps(area).encode()).ljust(16 << 20, b"\0")


def crash():
    """Write a file for good, then keep writing until the host kills the machine."""
    keys = Keys()

    def busy(path):
        with (path / "kept").open("wb") as stream:
            stream.write(b"k" * (1 << 20))
            stream.flush()
            os.fsync(stream.fileno())
        os.sync()
        print("casemate-probe " + json.dumps({"key": keys.key, "record": keys.record}), flush=True)
        for number in range(10_000):
            (path / f"busy{number % 7}").write_bytes(os.urandom(1 << 20))
            os.sync()
            print(f"casemate-busy {number}", flush=True)

    attempt(keys, "one", busy)


def reopen(order):
    keys = Keys(order["key"], order["record"])

    def look(path):
        return {
            "kept": (path / "kept").read_bytes() == b"k" * (1 << 20),
            "files": sorted(p.name for p in path.iterdir()),
        }

    print("casemate-probe " + json.dumps(attempt(keys, "one", look)), flush=True)


try:
    order = json.loads(Path("/run/casemate/initdata.toml").read_text())
    Path("/run/casemate").mkdir(mode=0o700, exist_ok=True)
    {"attack": lambda _: attack(), "crash": lambda _: crash(), "reopen": reopen}[order["do"]](order)
except BaseException:
    print("casemate: " + traceback.format_exc().replace("\n", " | "), flush=True)
os.sync()
ctypes.CDLL(None).reboot(0x4321FEDC)  # LINUX_REBOOT_CMD_POWER_OFF
