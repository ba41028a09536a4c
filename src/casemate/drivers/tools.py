"""Programs of a newer Debian than the machine may have, at locked versions and without installing anything.

The packages of `tools.lock` are unpacked into the cache, once per lock; each program gets a starter that runs it by the
loader and the libraries that came with it. So mkfs.erofs and zstd give the same bytes on every machine.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from casemate.drivers import debs, lastwords, paths
from casemate.errors import Unavailable, Unusable

__all__ = ["PROGRAMS", "argv", "libraries", "path", "recipe_folder", "root", "unpack"]

# Program → where it lies in the unpacked tree.
PROGRAMS = {
    "cosign": "usr/bin/cosign",
    "docker-registry": "usr/bin/docker-registry",
    "dump.erofs": "usr/bin/dump.erofs",
    "fsck.erofs": "usr/bin/fsck.erofs",
    "mkfs.erofs": "usr/bin/mkfs.erofs",
    "skopeo": "usr/bin/skopeo",
    "veritysetup": "usr/sbin/veritysetup",
    "zstd": "usr/bin/zstd",
}
_LIBRARIES = "usr/lib/x86_64-linux-gnu"
_LOADER = f"{_LIBRARIES}/ld-linux-x86-64.so.2"


def recipe_folder() -> Path:
    """The folder `guest-image` with the recipe and the locks: of the checkout, or beside the installed package."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package.parents[1] / "guest-image", package / "guest-image"):
        if (folder / "recipe.toml").is_file():
            return folder
    raise Unusable("the folder guest-image is missing", hint="run from a checkout of the repository")


def path(name: str) -> Path:
    """An executable file that runs the program `name`; fetched and unpacked when needed."""
    if name not in PROGRAMS:
        raise Unusable(f"no tool {name!r}", hint=f"known are {', '.join(sorted(PROGRAMS))}")
    return root() / "bin" / name


def argv(name: str, *arguments: str) -> list[str]:
    """The argument list that runs the program `name` with `arguments`."""
    return [str(path(name)), *arguments]


def root(progress: Callable[[str], None] | None = None) -> Path:
    """The tool root of the current lock, made on first use."""
    lock = (recipe_folder() / "tools.lock").read_bytes()
    made = paths.cache() / "tools" / hashlib.sha256(lock).hexdigest()[:32]
    if (made / "bin").is_dir():
        return made
    packages = debs.parse_lock(lock.decode("utf-8", "replace"))
    files = debs.fetch(packages, progress=progress)
    made.parent.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".tools-", dir=made.parent))
    try:
        if progress:
            progress(f"unpacking {len(packages)} packages of tools")
        unpack((files[p.name] for p in packages), folder)
        _starters(folder, made)
        folder.chmod(0o755)
        folder.rename(made)
    except OSError as error:
        if not (made / "bin").is_dir():  # else another process was quicker, with the same content
            raise Unusable(f"cannot make {made} ({error.strerror})") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return made


def unpack(files: Iterable[Path], folder: Path) -> None:
    """Unpack packages into `folder` in the given order, without running anything of them."""
    for file in files:
        # dpkg keeps modes as they are in the package (tar -p), so the caller's umask has no say.
        said = subprocess.run(["dpkg-deb", "-x", file, folder], capture_output=True, text=True, check=False)
        if said.returncode:
            raise Unavailable(f"dpkg-deb cannot unpack {file.name}: {lastwords.of(said)}")


def libraries(tree: Path, program: Path) -> list[str]:
    """The libraries that a program of an unpacked tree loads, by name; one that is not in the tree is `Unusable`.

    The loader would quietly take a missing library from the machine itself, and the result would depend on it.
    """
    loader = tree / _LOADER
    said = subprocess.run(
        [loader, "--library-path", tree / _LIBRARIES, "--list", program],
        capture_output=True, text=True, check=False, env={},
    )  # fmt: skip
    if said.returncode:
        raise Unusable(f"cannot list the libraries of {program.relative_to(tree)}: {lastwords.of(said)}")
    names = []
    for words in map(str.split, said.stdout.splitlines()):
        if len(words) > 2 and words[1] == "=>":
            if not words[2].startswith(f"{tree}/"):
                raise Unusable(f"{program.relative_to(tree)} needs {words[0]}, which no locked package brings")
            if "/" not in words[0]:
                names.append(words[0])
    return sorted(names)


def _starters(folder: Path, final: Path) -> None:
    (folder / "bin.new").mkdir()
    for name, target in PROGRAMS.items():
        starter = folder / "bin.new" / name
        starter.write_text(
            "#!/bin/sh\n"
            f'exec "{final}/{_LOADER}" --library-path "{final}/{_LIBRARIES}" --argv0 {name} "{final}/{target}" "$@"\n',
            encoding="utf-8",
        )
        starter.chmod(0o755)
    # The tree's own bin is a link into usr in a merged system; programs are never taken from there.
    (folder / "bin").unlink(missing_ok=True)
    (folder / "bin.new").rename(folder / "bin")
