"""Paths inside a container's root folder, followed without ever leaving it.

The image's author chose its symlinks; an absolute one means the container's root, and `..` stops there. Used only while
no process of the container runs, so what was looked at stays so.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from casemate.errors import Malformed

_MAX_LINKS = 40
_MAX_READ = 1 << 20


def resolve(root: Path, path: str) -> Path:
    """The place of the container's `path` under `root`, every symlink followed inside; it need not exist."""
    waiting = [part for part in path.split("/") if part]
    done: list[str] = []
    links = 0
    while waiting:
        part = waiting.pop(0)
        if part in (".", ""):
            continue
        if part == "..":
            done = done[:-1]
            continue
        place = root.joinpath(*done, part)
        if not place.is_symlink():
            done.append(part)
            continue
        links += 1
        if links > _MAX_LINKS:
            raise Malformed(f"image: too many symbolic links on the way to {path[:200]!r}")
        aim = str(place.readlink())
        if aim.startswith("/"):
            done = []
        waiting = [piece for piece in aim.split("/") if piece] + waiting
    return root.joinpath(*done)


def make_folders(root: Path, path: str) -> Path:
    """The folder `path` in the container, made (mode 0755) where it is missing."""
    folder = resolve(root, path)
    for part in (*reversed(folder.relative_to(root).parents), folder.relative_to(root)):
        place = root / part
        if not place.is_dir():
            try:
                place.mkdir(mode=0o755)
            except OSError as error:
                raise Malformed(f"image: {path[:200]!r} can't be a folder ({error.strerror})") from error
    return folder


def is_empty_folder(root: Path, path: str) -> bool:
    """Whether `path` is missing or an empty folder in the container."""
    folder = resolve(root, path)
    if not folder.exists():
        return True
    return folder.is_dir() and next(os.scandir(folder), None) is None


def read(root: Path, path: str) -> str:
    """A small regular text file of the container, "" when it is missing or anything else."""
    place = resolve(root, path)
    try:
        if not stat.S_ISREG(place.lstat().st_mode):
            return ""
        with place.open("rb") as stream:
            return stream.read(_MAX_READ).decode("utf-8", "replace")
    except OSError:
        return ""


def link(root: Path, path: str, aim: str) -> None:
    """Put a symbolic link to `aim` at `path`, in place of a file that is there; a folder there is `Malformed`."""
    parent, _, name = path.rpartition("/")
    place = make_folders(root, parent or "/") / name
    if place.is_dir() and not place.is_symlink():
        raise Malformed(f"image: there is a folder at {path[:200]!r}, where the manifest wants a file")
    place.unlink(missing_ok=True)
    place.symlink_to(aim)
