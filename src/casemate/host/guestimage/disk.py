"""The root disk: an erofs image followed by its dm-verity tree."""

from __future__ import annotations

import mmap
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from casemate.boot import verity
from casemate.drivers import lastwords, tools
from casemate.errors import Unavailable
from casemate.host.guestimage.recipe import Recipe

__all__ = ["Disk", "make"]


@dataclass(frozen=True)
class Disk:
    """`blocks` of 4096 bytes of data; `salt` and `root` (the root hash) as lower-case hex."""

    blocks: int
    salt: str
    root: str

    @property
    def parameter(self) -> str:
        """The word of the kernel command line that the initrd opens the disk by."""
        return f"casemate.root={self.blocks}:{self.salt}:{self.root}"


def make(recipe: Recipe, folder: Path, target: Path) -> Disk:
    """Write the disk of the root in `folder` to `target`."""
    _erofs(recipe, folder, target)
    salt = bytes.fromhex(recipe.verity.salt)
    with target.open("r+b") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.write(bytes(-size % verity.BLOCK))
        stream.flush()
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data, memoryview(data) as view:
            blocks = len(view) // verity.BLOCK
            tree = verity.tree(view, salt)
        stream.write(verity.superblock(UUID(recipe.verity.uuid), salt, blocks) + tree.levels)
    return Disk(blocks, salt.hex(), tree.root.hex())


def _erofs(recipe: Recipe, folder: Path, target: Path) -> None:
    said = subprocess.run(
        tools.argv(
            "mkfs.erofs", "--quiet", f"-T{recipe.epoch}", f"-U{recipe.erofs.uuid}", "--all-root",
            *recipe.erofs.options, str(target), str(folder),
        ),
        capture_output=True, text=True, check=False, env={"LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    if said.returncode:
        raise Unavailable(f"mkfs.erofs failed: {lastwords.of(said)}")
