"""Layers onto a root folder, lowest first: what a tar may do to a tree, and nothing else.

Spec: OCI image-spec 1.1 layer.md (whiteouts ``.wh.<name>``, opaque ``.wh..wh..opq``). Rules, each with a name:
names are relative and without ``..`` (`path`); parents are directories or links that stay inside (`parent`, `link`,
`depth`); hard links lead to files of the tree (`link`); devices, FIFOs and unknown kinds are refused (`type`); one name
once a layer, folders excepted (`duplicate`); entries, file sizes and the total are bounded (`entries`, `file`,
`total`). Mode bits are kept, set-uid among them; owners are kept when run as root. Of extended attributes only
``security.capability`` is kept, ``trusted.*`` is refused (`xattr`: overlayfs obeys them), others are left out.
A file is always a new inode (O_EXCL): nothing is ever written through what an earlier entry left.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from casemate.errors import Unusable
from casemate.image import tarstream as tar
from casemate.image.tree import Dir, Tree, refuse

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
META = b".wh..wh."
CAPABILITY = b"security.capability"
_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Limits(msgspec.Struct, frozen=True):
    """Bounds of a whole image: number of entries, bytes of one file, bytes of all files."""

    entries: int = 200_000
    file: int = 4 << 30
    total: int = 16 << 30


class Unpacker:
    """Applies layers to the existing folder `root`. `own`: set owners and capabilities (default: when run as root)."""

    def __init__(self, root: Path, *, limits: Limits | None = None, own: bool | None = None) -> None:
        self._limits = limits or Limits()
        self._own = os.geteuid() == 0 if own is None else own
        self._tree = Tree(root)
        self._layers = 0
        self.entries = 0
        self.bytes = 0
        self._folders: dict[bytes, tuple[int, int]] = {}  # real path -> mode, mtime: set when the layer is complete

    def __enter__(self) -> Unpacker:
        return self

    def __exit__(self, *_: object) -> None:
        self._tree.__exit__()

    def layer(self, chunks: Iterable[bytes]) -> None:
        """Apply one layer's tar. Reads `chunks` to the end; on any error the folder is in an undefined state."""
        self._tree.begin(lowest=self._layers == 0)
        self._layers += 1
        self._folders.clear()
        reader = tar.Reader(chunks)
        try:
            for entry in reader:
                self._tree.settle()
                self._count(entry)
                self._apply(entry, reader)
            self._finish_folders()
        except OSError as error:
            raise Unusable(
                f"image layer cannot be unpacked: {os.strerror(error.errno or 0)}",
                hint="is there room for the image? More memory for the VM may help",
            ) from error

    def _count(self, entry: tar.Entry) -> None:
        self.entries += 1
        if self.entries > self._limits.entries:
            raise refuse("image.layer.entries", f"at most {self._limits.entries} entries", "more", entry.name)
        if entry.kind != tar.REGULAR:
            return
        self.bytes += entry.size
        if entry.size > self._limits.file:
            raise refuse("image.layer.file", f"at most {self._limits.file} bytes", f"{entry.size} bytes", entry.name)
        if self.bytes > self._limits.total:
            raise refuse("image.layer.total", f"at most {self._limits.total} bytes", "more", entry.name)

    def _apply(self, entry: tar.Entry, reader: tar.Reader) -> None:
        path, name = _split(entry.name)
        if not name:
            self._root(entry)
            return
        if name.startswith(WHITEOUT):
            self._whiteout(path, name)
            return
        here = self._parent(path)
        if entry.kind == tar.REGULAR:
            self._file(here, name, entry, reader)
        elif entry.kind == tar.DIRECTORY:
            self._folder(here, name, entry)
        elif entry.kind == tar.SYMLINK:
            self._symlink(here, name, entry)
        elif entry.kind == tar.HARD_LINK:
            self._hard_link(here, name, entry)
        else:
            raise refuse("image.layer.type", "a file, folder or link", _KINDS.get(entry.kind, "unknown"), entry.name)
        self._tree.mark(here, name)

    def _parent(self, path: bytes) -> Dir:
        here = self._tree.directory(path)
        if here is None:  # it was made when missing
            raise refuse("image.layer.parent", "a directory above every entry", "none", path)
        return here

    def _root(self, entry: tar.Entry) -> None:
        if entry.kind != tar.DIRECTORY:
            raise refuse("image.layer.path", "a name below the root", "the root itself", entry.name)
        self._folders[b""] = (entry.mode, entry.mtime)
        if self._own:
            os.fchown(self._tree.root.fd, entry.uid, entry.gid)

    def _file(self, here: Dir, name: bytes, entry: tar.Entry, reader: tar.Reader) -> None:
        try:
            fd = os.open(name, _FILE, 0o600, dir_fd=here.fd)
        except FileExistsError:
            self._make_room(here, name)
            fd = os.open(name, _FILE, 0o600, dir_fd=here.fd)
        try:
            for piece in reader.data():
                rest = piece
                while rest:
                    rest = rest[os.write(fd, rest) :]
            self._attributes(fd, entry)
            os.utime(fd, (entry.mtime, entry.mtime))
        finally:
            os.close(fd)

    def _attributes(self, fd: int, entry: tar.Entry) -> None:
        """Owner first: a change of owner clears set-uid and capabilities."""
        if self._own and (entry.uid or entry.gid):
            os.fchown(fd, entry.uid, entry.gid)
        os.fchmod(fd, entry.mode)
        for key, value in entry.xattrs.items():
            if key.startswith(b"trusted."):
                raise refuse("image.layer.xattr", "no trusted.* attributes", repr(key[:64]), entry.name)
            if key == CAPABILITY and self._own:
                os.setxattr(fd, key, value)

    def _folder(self, here: Dir, name: bytes, entry: tar.Entry) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=here.fd)
        except FileExistsError:
            if not self._tree.is_directory(here, name):
                self._make_room(here, name)
                os.mkdir(name, 0o700, dir_fd=here.fd)
        folder = self._tree.child(here, name)
        # While the layer comes in, its owner must be able to write; the last word is said in _finish_folders.
        self._attributes(folder.fd, _with_mode(entry, entry.mode | 0o700))
        self._folders[folder.path] = (entry.mode, entry.mtime)

    def _symlink(self, here: Dir, name: bytes, entry: tar.Entry) -> None:
        if not entry.link:
            raise refuse("image.layer.link", "a link with a target", "none", entry.name)
        try:
            os.symlink(entry.link, name, dir_fd=here.fd)
        except FileExistsError:
            self._make_room(here, name)
            os.symlink(entry.link, name, dir_fd=here.fd)
        if self._own and (entry.uid or entry.gid):
            os.chown(name, entry.uid, entry.gid, dir_fd=here.fd, follow_symlinks=False)
        os.utime(name, (entry.mtime, entry.mtime), dir_fd=here.fd, follow_symlinks=False)

    def _hard_link(self, here: Dir, name: bytes, entry: tar.Entry) -> None:
        path, target = _split(entry.link)
        source = self._tree.directory(path, create=False)
        try:
            if source is None or not target or self._tree.is_directory(source, target):
                raise FileNotFoundError
            try:
                os.link(target, name, src_dir_fd=source.fd, dst_dir_fd=here.fd, follow_symlinks=False)
            except FileExistsError:
                self._make_room(here, name)
                os.link(target, name, src_dir_fd=source.fd, dst_dir_fd=here.fd, follow_symlinks=False)
        except FileNotFoundError:
            raise refuse("image.layer.link", "a hard link to a file of the image", "no such file", entry.link) from None

    def _whiteout(self, path: bytes, name: bytes) -> None:
        """Take away what lower layers left; what this layer brought stays, wherever the whiteout stands in it."""
        here = self._tree.directory(path, create=False)
        hidden = name[len(WHITEOUT) :]
        if name == OPAQUE:
            if here is not None and self._layers > 1:
                self._tree.clear(here)
            return
        if name.startswith(META):
            return  # aufs keeps its own books under such names
        if hidden in (b"", b".", b".."):
            raise refuse("image.layer.whiteout", "a name behind .wh.", repr(hidden), name)
        if here is None:
            return
        try:
            if not self._tree.brought(here, hidden):
                self._tree.remove(here, hidden)
            elif self._tree.is_directory(here, hidden):
                self._tree.clear(self._tree.child(here, hidden))
        except FileNotFoundError:
            return

    def _make_room(self, here: Dir, name: bytes) -> None:
        """Something stands where an entry goes: a lower layer's is replaced, this layer's own is a duplicate."""
        if self._tree.brought(here, name):
            raise refuse("image.layer.duplicate", "each name once in a layer", "twice", here.below(name))
        self._tree.remove(here, name)

    def _finish_folders(self) -> None:
        """Modes and times of folders, when nothing goes into them any more. Deepest first, as modes may close them."""
        for path in sorted(self._folders, key=len, reverse=True):
            mode, mtime = self._folders[path]
            self._tree.settle()
            folder = self._tree.directory(path, create=False)
            if folder is not None and folder.path == path:
                if mode & 0o700 != 0o700 or not path:
                    os.fchmod(folder.fd, mode)
                os.utime(folder.fd, (mtime, mtime))


_KINDS = {tar.CHARACTER: "a character device", tar.BLOCK_DEVICE: "a block device", tar.FIFO: "a FIFO"}


def _split(name: bytes) -> tuple[bytes, bytes]:
    """(folder, last part) of an entry's name, without ``.`` parts; what leads out is refused."""
    if name.startswith(b"/"):
        raise refuse("image.layer.path", "a relative name", "an absolute one", name)
    parts = [part for part in name.split(b"/") if part and part != b"."]
    if b".." in parts:
        raise refuse("image.layer.path", "a name without ..", "a way out", name)
    if not parts:
        return b"", b""
    if len(max(parts, key=len)) > 255:
        raise refuse("image.layer.path", "names of at most 255 bytes", "a longer one", name)
    if WHITEOUT in name and any(part.startswith(WHITEOUT) for part in parts[:-1]):
        raise refuse("image.layer.whiteout", "whiteouts without content", "a folder that is one", name)
    return b"/".join(parts[:-1]), parts[-1]


def _with_mode(entry: tar.Entry, mode: int) -> tar.Entry:
    return tar.Entry(entry.name, entry.kind, 0, mode, entry.uid, entry.gid, entry.mtime, b"", entry.xattrs)
