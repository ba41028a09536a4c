"""Directories under one root, reached by descriptors alone: no path is ever given to the kernel as a whole.

Links met on the way are followed as a process inside the root would follow them (absolute ones start at the root,
``..`` stops there), so that nothing an image contains leads outside. Each part is opened by itself, with O_NOFOLLOW.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from casemate.errors import Refused, Unusable

MAX_DEPTH = 128
MAX_LINKS = 40
_KEPT_OPEN = 256
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Dir:
    """An open directory; `path` is its real place below the root (b"" for the root itself)."""

    __slots__ = ("depth", "fd", "parent", "path")

    def __init__(self, fd: int, path: bytes, parent: Dir | None) -> None:
        self.fd, self.path, self.parent = fd, path, parent
        self.depth: int = parent.depth + 1 if parent else 0

    def below(self, name: bytes) -> bytes:
        """The real path of an entry of this directory."""
        return self.path + b"/" + name if self.path else name


class Tree:
    """The tree at `root`. Use as a context manager: it keeps descriptors open from entry to entry.

    `made` tells, by directory, which names the layer at hand brought: whiteouts and duplicates are judged by it. It is
    None for the lowest layer, which brought all there is. A `Dir` serves until the next call of `settle`.
    """

    def __init__(self, root: Path) -> None:
        try:
            self.root = Dir(os.open(root, _DIRECTORY), b"", None)
        except OSError as error:
            raise Unusable(f"{root}: cannot be opened as a directory ({error.strerror})") from error
        self.made: dict[bytes, set[bytes]] | None = None
        self._open: dict[bytes, Dir] = {}
        self._asked: dict[tuple[bytes, bool], Dir] = {}
        self._dead: list[Dir] = []  # removed, and closed only by `settle`: a number must not be reused while in use

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *_: object) -> None:
        self._forget()
        os.close(self.root.fd)

    def begin(self, *, lowest: bool) -> None:
        """A new layer starts."""
        self._forget()
        self.made = None if lowest else {}

    def settle(self) -> None:
        """Between two entries, when no `Dir` is in use: close what was removed, and keep not too many open."""
        if len(self._open) > _KEPT_OPEN:
            self._forget()
        elif self._dead:
            self._bury()

    def mark(self, here: Dir, name: bytes) -> None:
        """Note that the layer at hand brought `name`."""
        if self.made is not None:
            self.made.setdefault(here.path, set()).add(name)

    def brought(self, here: Dir, name: bytes) -> bool:
        """Whether the layer at hand brought `name`."""
        return self.made is None or name in self.made.get(here.path, ())

    def directory(self, path: bytes, *, create: bool = True) -> Dir | None:
        """The directory at `path` (without ``..``), links followed inside; None if missing and not `create`."""
        known = self._asked.get((path, create))
        if known is None:
            known = self._descend(path, create=create)
            if known is not None:
                self._asked[path, create] = known
        return known

    def child(self, here: Dir, name: bytes) -> Dir:
        """The directory `name`, which was just made or seen."""
        found = self._open.get(here.below(name)) or self._enter(here, name, create=False)
        if not isinstance(found, Dir):
            raise refuse("image.layer.parent", "a directory", "another kind of file", here.below(name))
        return found

    def is_directory(self, here: Dir, name: bytes) -> bool:
        """Whether a directory (not a link to one) stands at `name`, which must exist."""
        return stat.S_ISDIR(os.stat(name, dir_fd=here.fd, follow_symlinks=False).st_mode)

    def remove(self, here: Dir, name: bytes) -> None:
        """Remove what stands at `name`, without following links."""
        if self.is_directory(here, name):
            _empty(here.fd, name)
            os.rmdir(name, dir_fd=here.fd)
        else:
            os.unlink(name, dir_fd=here.fd)
        self._asked.clear()
        gone = here.below(name)
        for path in [path for path in self._open if path == gone or path.startswith(gone + b"/")]:
            self._dead.append(self._open.pop(path))

    def clear(self, here: Dir) -> None:
        """Empty a directory of all that the layer at hand did not bring, at every level (an opaque whiteout)."""
        for name in _names(here.fd):
            if not self.brought(here, name):
                self.remove(here, name)
            elif self.is_directory(here, name):
                inner = Dir(os.open(name, _DIRECTORY, dir_fd=here.fd), here.below(name), here)
                try:
                    self.clear(inner)
                finally:
                    os.close(inner.fd)

    def _forget(self) -> None:
        self._dead.extend(self._open.values())
        self._open.clear()
        self._asked.clear()
        self._bury()

    def _bury(self) -> None:
        for directory in self._dead:
            os.close(directory.fd)
        self._dead.clear()

    def _descend(self, path: bytes, *, create: bool) -> Dir | None:
        here, links = self.root, 0
        todo = path.split(b"/")[::-1]
        while todo:
            name = todo.pop()
            if name in (b"", b"."):
                continue
            if name == b"..":  # only a link's target has it
                here = here.parent or self.root
                continue
            child = self._open.get(here.below(name)) or self._enter(here, name, create=create)
            if child is None:
                return None
            if isinstance(child, bytes):
                links += 1
                if links > MAX_LINKS:
                    raise refuse("image.layer.link", "links that end somewhere", "too many links in a row", path)
                here = self.root if child.startswith(b"/") else here
                todo.extend(child.split(b"/")[::-1])
                continue
            if create:
                self.mark(here, name)
            here = child
        return here

    def _enter(self, here: Dir, name: bytes, *, create: bool) -> Dir | bytes | None:
        """Open a directory; or the target of the link that stands there; or None where nothing stands."""
        if here.depth >= MAX_DEPTH:
            raise refuse("image.layer.depth", f"at most {MAX_DEPTH} levels", "more", here.below(name))
        try:
            fd = os.open(name, _DIRECTORY, dir_fd=here.fd)
        except FileNotFoundError:
            if not create:
                return None
            os.mkdir(name, 0o755, dir_fd=here.fd)
            fd = os.open(name, _DIRECTORY, dir_fd=here.fd)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                raise
            return _link_target(here, name)
        found = Dir(fd, here.below(name), here)
        self._open[found.path] = found
        return found


def _link_target(here: Dir, name: bytes) -> bytes:
    try:
        return os.readlink(name, dir_fd=here.fd)
    except OSError as error:
        raise refuse(
            "image.layer.parent", "a directory above every entry", "another kind of file", here.below(name)
        ) from error


def _names(fd: int) -> list[bytes]:
    return sorted(os.fsencode(name) for name in os.listdir(fd))


def _empty(parent: int, name: bytes) -> None:
    """Remove all that is in a directory. No tree is deeper than `MAX_DEPTH`, so the recursion is bounded too."""
    fd = os.open(name, _DIRECTORY, dir_fd=parent)
    try:
        for child in _names(fd):
            if stat.S_ISDIR(os.stat(child, dir_fd=fd, follow_symlinks=False).st_mode):
                _empty(fd, child)
                os.rmdir(child, dir_fd=fd)
            else:
                os.unlink(child, dir_fd=fd)
    finally:
        os.close(fd)


def refuse(rule: str, expected: str, found: str, name: bytes) -> Refused:
    """A refusal that names the entry, shortened and printable."""
    shown = name[:120].decode("utf-8", "replace")
    return Refused.because(rule, expected=expected, found=f"{found}: {shown!r}")
