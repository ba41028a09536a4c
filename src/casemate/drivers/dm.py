"""Device-mapper, loop devices and mounts by ioctl and system call: no program is started, so no key is in an argument.

Linux: include/uapi/linux/{dm-ioctl.h,loop.h,fs.h}. Tables that hold keys go to the kernel with DM_SECURE_DATA_FLAG (it
wipes its copy); ours is overwritten after use. Failures are `Unavailable` with the step's name and the kernel's reason,
never with the table.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time
from collections.abc import Iterable
from pathlib import Path

from casemate.errors import Unavailable
from casemate.volume.tables import Target

CONTROL = Path("/dev/mapper/control")
BLOCKS = Path("/sys/block")
_HEAD = struct.Struct("=3I I I I i I I I Q 128s 129s 7x")  # struct dm_ioctl, 312 bytes
_SPEC = struct.Struct("=Q Q i I 16s")  # struct dm_target_spec, 40 bytes
_DEV_CREATE, _DEV_REMOVE, _DEV_SUSPEND, _TABLE_LOAD = 3, 4, 6, 9
_SECURE_DATA = 1 << 15
_READ_ONLY = 1 << 0
_BUSY_ATTEMPTS = 20

_LOOP_CTL_GET_FREE, _LOOP_SET_FD, _LOOP_CLR_FD = 0x4C82, 0x4C00, 0x4C01
_BLKGETSIZE64, _BLKFLSBUF = 0x80081272, 0x1261


def create(name: str, table: Iterable[Target], *, read_only: bool = False) -> str:
    """Make and start the mapping `name`; returns its node (`/dev/dm-3`). Nothing is left behind when it fails."""
    lines = tuple(table)
    _ioctl(_DEV_CREATE, name, "create")
    try:
        _ioctl(_TABLE_LOAD, name, "load", _pack(lines), count=len(lines), flags=_READ_ONLY if read_only else 0)
        device = _ioctl(_DEV_SUSPEND, name, "resume")
    except Unavailable:
        remove(name)
        raise
    return _node(device)


def remove(name: str) -> None:
    """Remove the mapping `name` if it is there; waits a moment for its last user."""
    for attempt in range(_BUSY_ATTEMPTS):
        try:
            _ioctl(_DEV_REMOVE, name, "remove")
        except Unavailable as error:
            cause = error.__cause__
            code = cause.errno if isinstance(cause, OSError) else None
            if code == errno.ENXIO:
                return
            if code != errno.EBUSY or attempt == _BUSY_ATTEMPTS - 1:
                raise
            time.sleep(0.1)
        else:
            return


def _ioctl(
    command: int, name: str, verb: str, payload: bytearray | None = None, *, count: int = 0, flags: int = 0
) -> int:
    """One dm ioctl; returns the device number that the kernel filled in."""
    size = _HEAD.size + len(payload or b"")
    buffer = bytearray(size)
    _HEAD.pack_into(buffer, 0, 4, 0, 0, size, _HEAD.size, count, 0, flags | _SECURE_DATA, 0, 0, 0, name.encode(), b"")
    if payload:
        buffer[_HEAD.size :] = payload
        _wipe(payload)
    try:
        with CONTROL.open("rb", buffering=0) as control:
            fcntl.ioctl(control, (3 << 30) | (_HEAD.size << 16) | (0xFD << 8) | command, buffer, True)
        return int(_HEAD.unpack_from(buffer)[10])
    except OSError as error:
        raise Unavailable(f"device-mapper: cannot {verb} {name}: {os.strerror(error.errno or 0)}") from error
    finally:
        _wipe(buffer)


def _pack(lines: tuple[Target, ...]) -> bytearray:
    packed = bytearray()
    for line in lines:
        text = line.parameters.encode() + b"\0"
        text += bytes(-len(text) % 8)
        packed += _SPEC.pack(line.start, line.length, 0, _SPEC.size + len(text), line.kind.encode()) + text
    return packed


def _wipe(buffer: bytearray) -> None:
    buffer[:] = bytes(len(buffer))


def _node(device: int) -> str:
    """The node of a device number as dm_ioctl carries it (huge_encode_dev: 12 bits of major, 20 of minor)."""
    major, minor = (device & 0xFFF00) >> 8, (device & 0xFF) | ((device >> 12) & 0xFFF00)
    node = Path(f"/sys/dev/block/{major}:{minor}").resolve().name
    return f"/dev/{node}"


def attach(backing: Path) -> str:
    """A loop device over the file `backing`, held until `detach`; returns its node."""
    try:
        with Path("/dev/loop-control").open("rb", buffering=0) as control, backing.open("r+b", buffering=0) as file:
            for _ in range(8):  # another process may take the free one
                node = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
                try:
                    with Path(node).open("r+b", buffering=0) as loop:
                        fcntl.ioctl(loop, _LOOP_SET_FD, file.fileno())
                except OSError as error:
                    if error.errno != errno.EBUSY:
                        raise
                    continue
                return node
    except OSError as error:
        raise Unavailable(f"loop device: {os.strerror(error.errno or 0)}") from error
    raise Unavailable("loop device: none is free")


def detach(node: str) -> None:
    """Release a loop device."""
    try:
        with Path(node).open("rb", buffering=0) as loop:
            fcntl.ioctl(loop, _LOOP_CLR_FD)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise Unavailable(f"loop device {node}: {os.strerror(error.errno or 0)}") from error


def size(node: str) -> int:
    """Bytes of a block device."""
    answer = bytearray(8)
    try:
        with Path(node).open("rb", buffering=0) as device:
            fcntl.ioctl(device, _BLKGETSIZE64, answer, True)
    except OSError as error:
        raise Unavailable(f"{node}: {os.strerror(error.errno or 0)}") from error
    return int.from_bytes(answer, "little")


def flush(node: str) -> None:
    """Write a block device's buffers out and forget them, so that the next read comes from below."""
    with Path(node).open("rb", buffering=0) as device:
        os.fsync(device.fileno())
        fcntl.ioctl(device, _BLKFLSBUF)


def disk(serial: str) -> str | None:
    """The node of the virtio disk with this serial number, None when there is none; two of one serial are a lie."""
    found = []
    for entry in sorted(BLOCKS.glob("vd*")):
        try:
            told = (entry / "serial").read_text("ascii", "replace").strip()
        except OSError:
            continue
        if told == serial:
            found.append(f"/dev/{entry.name}")
    if len(found) > 1:
        raise Unavailable(f"{len(found)} disks say that they are {serial!r}")
    return found[0] if found else None
