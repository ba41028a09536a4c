"""Files and folders as the user names them, read with bounds; only regular files, no folder behind a link."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from casemate.drivers import userfiles
from casemate.errors import Malformed, Unusable
from casemate.tee.files import MAX_FILES, MAX_SIZE, File

MAX_TOTAL = 64 << 20
_MAX_DEPTH = 6
_MAX_SEEN = 4096


def read(paths: Iterable[Path]) -> list[File]:
    """The files at `paths`, folders with all that is in them but hidden files. Names are as the reader sees them."""
    found: dict[Path, File] = {}
    total = 0
    for path in paths:
        for name, place in _places(path):
            if place in found:
                continue
            if len(found) >= MAX_FILES:
                raise Malformed(f"more than {MAX_FILES} files", hint="name the files of one case alone")
            data = read_file(place)
            total += len(data)
            if total > MAX_TOTAL:
                raise Malformed(f"more than {MAX_TOTAL} bytes in all", hint="name the files of one case alone")
            found[place] = File(name, data)
    return list(found.values())


def read_file(path: Path, limit: int = MAX_SIZE) -> bytes:
    """The bytes of one regular file of at most `limit` bytes; `Unusable` where that cannot be."""
    return userfiles.read(path, limit)


def _places(path: Path) -> Iterator[tuple[str, Path]]:
    try:
        if not path.is_dir():
            yield str(path), path
            return
        seen = 0
        for folder, folders, files in os.walk(path, onerror=_raise):
            here = Path(folder)
            folders[:] = sorted(f for f in folders if not f.startswith("."))
            if len(here.relative_to(path).parts) >= _MAX_DEPTH:
                folders.clear()
            for name in sorted(files):
                seen += 1
                if seen > _MAX_SEEN:
                    raise Malformed(f"{path}: more than {MAX_FILES} files", hint="name the files of one case alone")
                place = here / name
                if not name.startswith(".") and place.is_file():
                    yield str(place.relative_to(path)), place
    except (OSError, ValueError) as error:
        raise Unusable(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _raise(error: OSError) -> None:
    raise error
