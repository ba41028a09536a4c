"""Open the manifest's volumes: disk by serial number, key and record from the broker, mapping, mount.

Formatting happens once in a volume's life, with a grant of the broker. Afterwards a disk that does not authenticate is
refused and named; it is never formatted, repaired or mounted.
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from casemate.errors import Malformed, Refused, Unavailable
from casemate.schema.manifest import Manifest, Volume
from casemate.volume import keys, look, record, tables
from casemate.wire.encoding import unb64

MKFS_SECONDS = 3600.0
_UNAUTHENTIC = (errno.EIO, errno.EILSEQ, errno.EUCLEAN, errno.EBADMSG, errno.EINVAL)
_MKFS = ("mkfs.ext4", "-q", "-F", "-b", str(tables.BLOCK), "-m", "0")
_MKFS_OPTIONS = ("-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0")


class KeyService(Protocol):
    """What a broker session offers for volumes (`casemate.guest.attest.Session`)."""

    def open_volume(self, name: str, size: int) -> dict[str, Any]:
        """Key, and record or grant."""
        ...

    def volume_initialised(self, name: str, grant: str, document: dict[str, Any]) -> None:
        """Spend the grant."""
        ...


class Open(NamedTuple):
    """A mounted volume and what must be undone, innermost first."""

    name: str
    path: Path
    mappings: tuple[str, ...]
    loop: str
    header: Path


class Volumes:
    """All volumes of one workload; `folder` lies on tmpfs and gets one mount point each."""

    def __init__(self, folder: Path, broker: KeyService) -> None:
        self._folder, self._broker = folder, broker
        self._open: list[Open] = []

    def open_all(self, manifest: Manifest) -> dict[str, Path]:
        """Mount every volume; name → mount point. Whatever fails, what was opened stays known to `close`."""
        for volume in manifest.volumes:
            self._open_one(volume, _owner(manifest, volume.name))
        return {volume.name: volume.path for volume in self._open}

    def close(self) -> list[str]:
        """Unmount and take the mappings down, last opened first; returns what could not be undone, as sentences."""
        from casemate.drivers import dm, mounts

        troubles: list[str] = []
        while self._open:
            volume = self._open.pop()
            steps: list[Callable[[], None]] = [partial(mounts.unmount, volume.path)]
            steps += [partial(dm.remove, name) for name in volume.mappings]
            steps.append(partial(dm.detach, volume.loop))
            for step in steps:
                try:
                    step()
                except Unavailable as error:
                    troubles.append(f"volume {volume.name}: {error}")
            volume.header.unlink(missing_ok=True)
        return troubles

    def _open_one(self, volume: Volume, owner: tuple[int, int]) -> None:
        from casemate.drivers import dm

        disk = dm.disk(f"vol-{volume.name[:16]}")
        if disk is None:
            raise Refused.because(
                "volume.disk",
                expected=f"a disk for the volume {volume.name}",
                found="none",
                hint="start the workload with a disk for each volume of its manifest",
            )
        size = dm.size(disk)
        _demand_form(volume, size)
        answer = _answer(self._broker.open_volume(volume.name, size))
        mapper = _Mapper(self._folder, volume, disk, size, answer.key)
        try:
            if answer.known is not None:
                answer.known.demand_size(size)
                mapper.reopen(answer.known)
            else:
                made = mapper.format(owner)
                self._broker.volume_initialised(volume.name, answer.grant, made.as_json())
        except BaseException:
            mapper.undo()
            raise
        self._open.append(mapper.opened())


class _Answer(NamedTuple):
    key: bytes
    known: record.Record | None
    grant: str


def _answer(document: dict[str, Any]) -> _Answer:
    """The broker's answer, judged: either a record, or a grant to format, never both."""
    key, grant, known = document.get("key"), document.get("format_grant"), document.get("record")
    if not isinstance(key, str) or not isinstance(document.get("initialised"), bool):
        raise Malformed("volume answer: key or initialised is missing")
    secret = unb64(key, "volume answer: key", size=keys.SECRET_BYTES)
    if document["initialised"]:
        return _Answer(secret, record.parse(known), "")
    if known is not None or not isinstance(grant, str) or not grant:
        raise Malformed("volume answer: neither initialised nor a grant to format")
    return _Answer(secret, None, grant)


def _demand_form(volume: Volume, size: int) -> None:
    if size < volume.minimum_mib << 20 or size % tables.BLOCK:
        raise Refused.because(
            "volume.minimum",
            expected=f"at least {volume.minimum_mib} MiB in whole 4 KiB blocks",
            found=f"{size} bytes",
            hint="give the volume a larger disk",
        )


def _owner(manifest: Manifest, name: str) -> tuple[int, int]:
    """The user of the first container that mounts the volume; a new volume's root belongs to it."""
    for container in manifest.containers:
        if any(mount.volume == name for mount in container.mounts):
            uid, _, gid = (container.user or "0").partition(":")
            return int(uid), int(gid or uid)
    return 0, 0


class _Mapper:
    """One volume's way from disk to mount point; `undo` takes back whatever was built."""

    def __init__(self, folder: Path, volume: Volume, disk: str, size: int, secret: bytes) -> None:
        self._volume, self._disk, self._size, self._secret = volume, disk, size, secret
        self._path = folder / volume.name
        self._header = folder / f".{volume.name}.header"
        self._mappings: list[str] = []
        self._loop = ""
        self._mounted = False

    def opened(self) -> Open:
        return Open(self._volume.name, self._path, tuple(reversed(self._mappings)), self._loop, self._header)

    def undo(self) -> None:
        from casemate.drivers import dm, mounts

        try:
            if self._mounted:
                mounts.unmount(self._path, lazy=True)
            for name in reversed(self._mappings):
                dm.remove(name)
            if self._loop:
                dm.detach(self._loop)
        except Unavailable:
            return  # the first error is the one to tell; the machine stops soon

    def reopen(self, known: record.Record) -> None:
        """Build the mapping from the record; the first authenticated read decides whether this is the disk."""
        derived = self._derive(known.uuid)
        try:
            base = self._base(known.superblock)
            data = self._data(base, known.provided, derived)
            with Path(data).open("rb", buffering=0) as device:
                device.read(tables.BLOCK)
            self._mount(data)
        except (OSError, Unavailable) as error:
            cause = error.__cause__ if isinstance(error, Unavailable) else error
            if isinstance(cause, OSError) and cause.errno not in _UNAUTHENTIC:
                raise  # the kernel lacks something; the disk was not judged
            raise Refused([look.finding(self._peek())]) from error

    def format(self, owner: tuple[int, int]) -> record.Record:
        """Make superblock, file system and record; the caller reports the record before anything is stored."""
        from casemate.drivers import dm

        uuid = os.urandom(16).hex()
        derived = self._derive(uuid)
        base = self._base(b"")
        name = self._name("integrity")
        dm.create(name, [tables.integrity(base, tables.HEADER, derived.journal)])
        dm.remove(name)
        dm.flush(self._loop)
        superblock = self._header.read_bytes()[: record.SUPERBLOCK]
        provided = record.provided_sectors(superblock)
        data = self._data(base, provided, derived)
        _prepare(data, provided)
        _make_file_system(data)
        self._mount(data)
        os.chown(self._path, *owner)
        self._path.chmod(0o755)
        os.sync()
        made = record.Record(uuid, self._size, provided, superblock)
        record.parse(made.as_json())
        return made

    def _derive(self, uuid: str) -> keys.Keys:
        return keys.derive(self._secret, app=self._volume.app, name=self._volume.name, uuid=uuid)

    def _base(self, superblock: bytes) -> str:
        from casemate.drivers import dm

        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._header.write_bytes(superblock.ljust(tables.HEADER * tables.SECTOR, b"\0"))
        self._loop = dm.attach(self._header)
        return self._create("base", tables.base(self._loop, self._disk, self._size // tables.SECTOR))

    def _data(self, base: str, provided: int, derived: keys.Keys) -> str:
        tags = self._create("integrity", [tables.integrity(base, provided, derived.journal)])
        return self._create("data", [tables.crypt(tags, provided, derived.data)])

    def _create(self, layer: str, table: Any) -> str:
        from casemate.drivers import dm

        node = dm.create(self._name(layer), table)
        self._mappings.append(self._name(layer))
        return node

    def _name(self, layer: str) -> str:
        return f"casemate-{self._volume.name}-{layer}"

    def _mount(self, data: str) -> None:
        from casemate.drivers import mounts

        self._path.mkdir(mode=0o700, exist_ok=True)
        mounts.mount(data, self._path, "ext4", flags=mounts.NO_SUID | mounts.NO_DEV, options="errors=remount-ro")
        self._mounted = True

    def _peek(self) -> bytes:
        try:
            with Path(self._disk).open("rb", buffering=0) as device:
                return device.read(look.PEEK) or b""
        except OSError:
            return b"?"


def _prepare(device: str, sectors: int) -> None:
    """Write what mkfs would have to read, see `tables.first_writes`."""
    with Path(device).open("r+b", buffering=0) as stream:
        for offset, count in tables.first_writes(sectors):
            stream.seek(offset)
            stream.write(bytes(count))
        os.fsync(stream.fileno())


def _make_file_system(device: str) -> None:
    words = [*_MKFS, *_MKFS_OPTIONS, device]
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=MKFS_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"mkfs.ext4 failed ({type(error).__name__})") from error
    if done.returncode:
        tail = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise Unavailable(f"mkfs.ext4 failed: {''.join(tail)[:200]}")
