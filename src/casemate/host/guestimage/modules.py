"""Kernel modules by name, with their dependencies in loading order, read from the modules themselves.

A module tells its dependencies in its `.modinfo` section (``depends=a,b`` and ``softdep=pre: c``), so no depmod is
needed. Modules stay signed: only the .xz around them is removed.
"""

from __future__ import annotations

import lzma
import re
from collections.abc import Iterable
from pathlib import Path

from casemate.errors import Unusable

__all__ = ["Modules"]


class Modules:
    """The modules of the unpacked kernel package in `tree`."""

    def __init__(self, tree: Path) -> None:
        folder = tree / "usr/lib/modules"
        self._files = {_plain(f.name): f for f in sorted(folder.rglob("*.ko.xz"))}
        builtin = sorted(folder.glob("*/modules.builtin"))
        self.release = builtin[0].parent.name if builtin else ""
        self._builtin = {_plain(Path(line).name) for f in builtin for line in f.read_text().split()}
        self._read: dict[str, bytes] = {}

    def ordered(self, names: Iterable[str], loaded: Iterable[str] = ()) -> list[str]:
        """`names` and what they need, each after its own needs, without those in `loaded`."""
        order: list[str] = []
        done = {_plain(name) for name in loaded}

        def visit(name: str, seen: tuple[str, ...]) -> None:
            if name in done or name in self._builtin or name in seen:
                return
            for need in self._needs(name):
                visit(need, (*seen, name))
            done.add(name)
            order.append(name)

        for name in names:
            visit(_plain(name), ())
        return order

    def table(self, names: Iterable[str]) -> bytes:
        """`modules.dep` of `names`: each file with everything that it needs, the deepest last, as modprobe reads it."""
        lines = []
        for name in names:
            needs = [n for n in self.ordered([name]) if n != _plain(name)]
            lines.append(f"{_plain(name)}.ko:" + "".join(f" {need}.ko" for need in reversed(needs)) + "\n")
        return "".join(lines).encode()

    def content(self, name: str) -> bytes:
        """The module, uncompressed; an unknown name is `Unusable`."""
        name = _plain(name)
        if name not in self._files:
            raise Unusable(f"the kernel package has no module {name}", hint="correct [modules] in recipe.toml")
        if name not in self._read:
            self._read[name] = lzma.decompress(self._files[name].read_bytes())
        return self._read[name]

    def _needs(self, name: str) -> list[str]:
        data = self.content(name)
        names = [n for m in re.findall(rb"\0?depends=([^\0]*)\0", data) for n in m.decode().split(",") if n]
        soft = [n for m in re.findall(rb"\0softdep=pre: ([^\0]*)\0", data) for n in m.decode().split()]
        # A soft dependency may be left out of the kernel.
        return [_plain(n) for n in names] + [n for n in map(_plain, soft) if n in self._files]


def _plain(name: str) -> str:
    """The kernel's own spelling: `dm-mod.ko.xz` is `dm_mod`."""
    return name.partition(".")[0].replace("-", "_")
