"""The initrd: a cpio archive (newc) written by hand, so that nothing but its content decides its bytes."""

from __future__ import annotations

import stat
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from casemate.drivers import lastwords, tools
from casemate.errors import Unavailable
from casemate.host.guestimage.modules import Modules
from casemate.host.guestimage.recipe import Recipe

__all__ = ["Entry", "archive", "compress", "entries"]

_LIBRARIES = "usr/lib/x86_64-linux-gnu"


@dataclass(frozen=True)
class Entry:
    """One file of the archive: its mode with the type's bits, content or link target, device number of a node."""

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def archive(content: Iterable[Entry], epoch: int) -> bytes:
    """The cpio archive of `content` in its order; every file belongs to root and has the time `epoch`."""
    out = bytearray()
    for inode, entry in enumerate([*content, Entry("TRAILER!!!", 0)]):
        name = entry.name.encode() + b"\0"
        links = 2 if stat.S_ISDIR(entry.mode) else 1
        fields = (inode, entry.mode, 0, 0, links, epoch if entry.mode else 0, len(entry.data), 0, 0,
                  *entry.device, len(name), 0)  # fmt: skip
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + name
        out += bytes(-len(out) % 4)
        out += entry.data
        out += bytes(-len(out) % 4)
    return bytes(out) + bytes(-len(out) % 512)


def entries(recipe: Recipe, root: Path, modules: Modules, script: bytes) -> list[Entry]:
    """What the initrd holds: busybox, dmsetup with its libraries, the modules in loading order, and the script."""
    folders = ["bin", "dev", "lib", "lib64", "lib/x86_64-linux-gnu", "newroot", "proc", "run", "sys"]
    content = [Entry(name, stat.S_IFDIR | 0o755) for name in folders]
    content += [
        Entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)),
        Entry("dev/null", stat.S_IFCHR | 0o666, device=(1, 3)),
        Entry("init", stat.S_IFREG | 0o755, script),
        Entry("bin/busybox", stat.S_IFREG | 0o755, (root / "usr/bin/busybox").read_bytes()),
        Entry("bin/sh", stat.S_IFLNK | 0o777, b"busybox"),
        Entry("bin/dmsetup", stat.S_IFREG | 0o755, (root / "usr/sbin/dmsetup").read_bytes()),
    ]
    loader = f"{_LIBRARIES}/ld-linux-x86-64.so.2"
    content.append(Entry("lib64/ld-linux-x86-64.so.2", stat.S_IFREG | 0o755, (root / loader).read_bytes()))
    for library in tools.libraries(root, root / "usr/sbin/dmsetup"):
        data = (root / _LIBRARIES / library).read_bytes()
        content.append(Entry(f"lib/x86_64-linux-gnu/{library}", stat.S_IFREG | 0o644, data))
    return content + _modules(recipe, modules)


def _modules(recipe: Recipe, modules: Modules) -> list[Entry]:
    """The modules with modprobe's table, and the names to load; one modprobe for all, since a process costs more."""
    order = modules.ordered(recipe.modules.initrd)
    folder = f"lib/modules/{modules.release}"
    content = [Entry(name, stat.S_IFDIR | 0o755) for name in ("lib/modules", folder)]
    content.append(Entry("lib/modules/load", stat.S_IFREG | 0o644, " ".join(order).encode() + b"\n"))
    content.append(Entry(f"{folder}/modules.dep", stat.S_IFREG | 0o644, modules.table(order)))
    content += [Entry(f"{folder}/{n}.ko", stat.S_IFREG | 0o644, modules.content(n)) for n in order]
    return content


def compress(data: bytes) -> bytes:
    """`data` by the locked zstd: highest level, one thread, so the same bytes everywhere."""
    said = subprocess.run(
        tools.argv("zstd", "-19", "--single-thread", "--no-progress", "-q", "-c"),
        input=data, capture_output=True, check=False,
    )  # fmt: skip
    if said.returncode:
        raise Unavailable(f"zstd failed: {lastwords.of(said)}")
    return said.stdout
