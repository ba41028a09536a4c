"""The story of a build: packages → root folder → disk, initrd, kernel, firmware → `image.json`."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from casemate.boot import pcr
from casemate.drivers import paths, tools
from casemate.errors import Malformed, Unavailable, Unusable
from casemate.host.guestimage import disk, image, initrd, lock, root
from casemate.host.guestimage.image import GuestImage
from casemate.host.guestimage.lock import Lock
from casemate.host.guestimage.modules import Modules
from casemate.host.guestimage.recipe import Recipe, input_digest, load_recipe, recorded_registers
from casemate.schema.launch import Launch

__all__ = ["build", "build_into", "ensure", "relock_all"]

_FIRMWARE = "usr/share/ovmf/OVMF.fd"
_ROOM_NEEDED = 700 << 20
_KEPT_SECONDS = 7 * 86400
Progress = Callable[[str], None]


def ensure(progress: Progress = lambda _: None) -> GuestImage:
    """The guest image of this source tree, from the cache or built now."""
    recipe = load_recipe()
    committed = (tools.recipe_folder() / "packages.lock").read_bytes()
    target = _cached(recipe, committed)
    if not _sound(target):
        with _alone(target.parent, progress):
            tools.root(progress)
            found, files = lock.obtain(recipe, progress)
            target = _cached(recipe, found.text.encode())
            if not _sound(target):
                shutil.rmtree(target, ignore_errors=True)
                build(recipe, found, files, target, progress)
                _drop_old(target.parent)
    with suppress(OSError):  # a cache that is not ours, or whose image another process replaces just now
        os.utime(target / "image.json")
    return image.load(target)


@contextmanager
def _alone(folder: Path, progress: Progress) -> Iterator[None]:
    """One build at a time in a cache: two would remove each other's image between its making and its first use."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("another process builds the guest image; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _sound(folder: Path) -> bool:
    """Whether an image is there as it was built; a damaged one is built again."""
    try:
        image.load(folder)
    except (Unusable, Malformed):
        return False
    return True


def _cached(recipe: Recipe, text: bytes) -> Path:
    return paths.cache() / "guest" / input_digest(recipe, text)[:32]


def _drop_old(folder: Path) -> None:
    """Remove images that nobody asked for in a week; each change of the guest's sources makes another one."""
    for paper in folder.glob("*/image.json"):
        if time.time() - paper.stat().st_mtime > _KEPT_SECONDS:
            shutil.rmtree(paper.parent, ignore_errors=True)


def build_into(folder: Path, progress: Progress = lambda _: None) -> GuestImage:
    """A build of this source tree into `folder`, without the cache; an existing folder is `Unusable`."""
    if folder.exists():
        raise Unusable(f"{folder} exists", hint="name a folder that does not exist yet")
    recipe = load_recipe()
    tools.root(progress)
    found, files = lock.obtain(recipe, progress)
    return build(recipe, found, files, folder.absolute(), progress)


def relock_all(progress: Progress = lambda _: None) -> None:
    """Write both lock files of the repository anew, with the newest versions of the mirror."""
    recipe = load_recipe()
    folder = tools.recipe_folder()
    lock.relock(recipe, folder / "packages.lock", progress)
    lock.relock_tools(recipe, folder / "tools.lock")


def build(
    recipe: Recipe,
    found: Lock,
    files: Mapping[str, Path],
    target: Path,
    progress: Progress = lambda _: None,
    *,
    process_one: Path | None = None,
) -> GuestImage:
    """Build into the folder `target`, which appears complete or not at all.

    `process_one` replaces init.py: an image that is looked into by tests, and measured as another one.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    scripts = tools.recipe_folder()
    inputs = input_digest(recipe, found.text.encode())
    out = Path(tempfile.mkdtemp(prefix=".build-", dir=target.parent))
    try:
        with _workspace() as work:
            progress(f"unpacking {len(found.packages)} packages")
            by_name = {p.name: p for p in found.packages}
            for name in (found.kernel, found.firmware):
                tools.unpack([files[by_name[name].name]], work / name)
            tree = work / "root"
            root.unpack_root(found.root, files, tree)
            modules = Modules(work / found.kernel)
            progress("assembling the root")
            root.assemble(recipe, tree, modules, scripts / "root/init", process_one or scripts / "root/init.py")
            progress("making the disk and its hash tree")
            made = disk.make(recipe, tree, out / "disk.img")
            progress("making the initrd")
            content = initrd.entries(recipe, tree, modules, (scripts / "initrd/init").read_bytes())
            (out / "initrd").write_bytes(initrd.compress(initrd.archive(content, recipe.epoch)))
            shutil.copyfile(_only(work / found.kernel, "boot/vmlinuz-*"), out / "kernel")
            shutil.copyfile(_only(work / found.firmware, _FIRMWARE), out / "firmware.fd")
        if input_digest(recipe, found.text.encode()) != inputs:
            raise Unavailable("the guest's sources were edited while its image was built", hint="build again")
        _describe(recipe, found, made, inputs, out)
        out.chmod(0o755)
        shutil.rmtree(target, ignore_errors=True)
        out.rename(target)
    finally:
        shutil.rmtree(out, ignore_errors=True)
    return image.load(target)


def _describe(recipe: Recipe, found: Lock, made: disk.Disk, inputs: str, out: Path) -> None:
    command_line = " ".join([*recipe.kernel.command_line, made.parameter])
    firmware, kernel = (out / "firmware.fd").read_bytes(), (out / "kernel").read_bytes()
    recorded = recorded_registers(firmware)
    launch = Launch(kernel=kernel, initrd=(out / "initrd").read_bytes(), command_line=command_line)
    image.describe(
        out,
        name=recipe.name,
        command_line=command_line,
        roothash=made.root,
        recorded=recorded,
        measurements={"tpm": {**recorded, **pcr.direct_boot(launch)}},
        lock=found.digest,
        lock_committed=found.committed,
        inputs=inputs,
        packages=[f"{p.name} {p.version}" for p in found.packages],
    )


@contextmanager
def _workspace() -> Iterator[Path]:
    """A folder for the trees: in memory when there is room, since thousands of small files are made."""
    shared = Path("/dev/shm")  # noqa: S108 - mkdtemp makes a private folder in it
    roomy = shared.is_dir() and os.access(shared, os.W_OK) and shutil.disk_usage(shared).free > _ROOM_NEEDED
    folder = Path(tempfile.mkdtemp(prefix="casemate-guest-", dir=shared if roomy else None))
    before = os.umask(0o022)
    try:
        yield folder
    finally:
        os.umask(before)
        shutil.rmtree(folder, ignore_errors=True)


def _only(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise Unusable(f"{folder.name} has {len(found)} files {pattern}, expected one")
    return found[0]
