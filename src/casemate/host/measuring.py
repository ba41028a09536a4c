"""What is measured before it is launched: a launch put together from files, or from the locked guest image.

The rooms compute; here the files are read, each with a bound. A platform that needs a firmware build of its own takes
the one that is named, or the guest image's `firmware.<role>.fd`.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from casemate.drivers import userfiles
from casemate.errors import Unusable
from casemate.schema.launch import Launch
from casemate.tee.room import Room

if TYPE_CHECKING:
    from casemate.host.guestimage import GuestImage

__all__ = ["Sources", "launch", "rehearse"]

_LIMITS = {"firmware": 64 << 20, "kernel": 256 << 20, "initrd": 1 << 30, "image": 1 << 30, "event_log": 1 << 20,
           "command_line_file": 64 << 10, "initdata": 4 << 20}  # fmt: skip
# The shortest PE image there is: no section ("PE Format": where the headers are at 0x3c, magic of PE32+, their size).
_KERNEL = (
    b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40) + b"PE\0\0".ljust(24, b"\0")
    + struct.pack("<H58xI", 0x20B, 0x100).ljust(0xA8, b"\0")
)  # fmt: skip
Progress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The files of a launch. Without `kernel`, `image` and `firmware_only`, the guest image gives what is not named."""

    firmware: Path | None = None
    kernel: Path | None = None
    initrd: Path | None = None
    image: Path | None = None
    event_log: Path | None = None
    initdata: Path | None = None
    command_line: str | None = None
    command_line_file: Path | None = None
    firmware_only: bool = False
    vcpus: int = 1
    cpu_type: str = ""
    memory_mib: int = 512
    vmm: str = ""
    guest_features: int | None = None


def launch(sources: Sources, room: Room, progress: Progress) -> tuple[Launch, str]:
    """(what the room measures, what it was made from in words)."""
    if sum(1 for part in (sources.kernel, sources.image, sources.firmware_only) if part) > 1:
        raise Unusable("a kernel, a whole image and a firmware alone are three kinds of launches: name one")
    line = _command_line(sources)
    given: dict[str, Any] = {
        name: _read(sources, name) for name in ("firmware", "kernel", "initrd", "image", "event_log")
    }
    digest = hashlib.sha256(_read(sources, "initdata")).digest() if sources.initdata else None
    plain = Launch(
        vcpus=sources.vcpus, cpu_type=sources.cpu_type, memory_mib=sources.memory_mib, vmm=sources.vmm,
        guest_features=sources.guest_features, initdata_digest=digest, command_line=line or "",
    )  # fmt: skip
    if sources.kernel or sources.image or sources.firmware_only:
        if not sources.kernel and (sources.initrd or line is not None):
            raise Unusable("an initrd and a command line need a kernel", hint="give --kernel too")
        return msgspec.structs.replace(plain, **given), "files"
    changes = {name: data for name, data in given.items() if data}
    rehearse(room, msgspec.structs.replace(plain, **changes))
    from casemate.host import guestimage

    image = guestimage.ensure(progress)
    if line is None:
        plain = msgspec.structs.replace(plain, command_line=image.command_line)
    return _of_image(image, room, plain, changes), f"guest image {image.folder}"


def rehearse(room: Room, given: Launch) -> None:
    """Measure what was given with stand-ins for the guest image's files: what is wrong with it is said before a build.

    Where the firmware is to come from the image, nothing can be said about a platform that needs one of its own.
    """
    launch = msgspec.structs.replace(given, kernel=_KERNEL, initrd=given.initrd or b"initrd")
    if given.firmware or not _own_firmware(room, launch):
        room.measure(launch)


def _own_firmware(room: Room, launch: Launch) -> bool:
    """Whether a platform needs a firmware build of its own; one that is not started here at all needs none."""
    try:
        return room.machine(launch).firmware != "generic"
    except Unusable:
        return False


def _of_image(image: GuestImage, room: Room, plain: Launch, changes: dict[str, Any]) -> Launch:
    """The guest image's launch, with its parts replaced by those that were named."""
    base = image.launch(plain.initdata_digest, plain.vcpus, plain.memory_mib, plain.cpu_type)
    files: dict[str, Any] = {n: getattr(base, n) for n in ("firmware", "kernel", "initrd", "recorded")} | changes
    role = "generic" if "firmware" in changes else room.machine(base).firmware
    if role != "generic":
        own = image.folder / f"firmware.{role}.fd"
        if not own.is_file():
            raise Unusable(f"this platform needs the firmware build {role!r}", hint="name it with --firmware FILE")
        files["firmware"] = own.read_bytes()
    if role != "generic" or "firmware" in changes:
        files["recorded"] = {}
    return msgspec.structs.replace(plain, **files)


def _command_line(sources: Sources) -> str | None:
    if sources.command_line is not None and sources.command_line_file is not None:
        raise Unusable("the command line is given twice", hint="give --cmdline or --cmdline-file")
    if sources.command_line_file is None:
        return sources.command_line
    try:
        return _read(sources, "command_line_file").decode("utf-8").removesuffix("\n")
    except UnicodeDecodeError as error:
        raise Unusable("the command line's file is no text in UTF-8") from error


def _read(sources: Sources, name: str) -> bytes:
    """The file's bytes; none when it isn't named."""
    path: Path | None = getattr(sources, name)
    if path is None:
        return b""
    limit = _LIMITS[name]
    data = userfiles.read(path, limit)
    if not data and name != "initdata":
        raise Unusable(f"{path} is empty")
    return data
