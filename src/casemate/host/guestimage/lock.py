"""Which packages the guest is made of: the lock of the repository, or a newer one when the mirror moved on."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from casemate.drivers import debs, paths, tools
from casemate.drivers.aptroot import AptRoot
from casemate.drivers.debs import Gone, Mirrors, Package
from casemate.errors import Malformed
from casemate.host.guestimage.recipe import Recipe

__all__ = ["Lock", "load", "obtain", "relock", "relock_tools", "relocked_file", "resolve", "resolve_tools"]

_HEADING = """Packages of {what}, locked.
name version architecture archive file size sha256; written by `casemate guest build --relock`."""
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Lock:
    """The packages, the kernel's and the firmware's package names, and the lock file's text and digest.

    `committed` is false for a lock that was made on this machine because the mirror lost a version.
    """

    packages: tuple[Package, ...]
    kernel: str
    firmware: str
    text: str
    committed: bool

    @property
    def digest(self) -> str:
        """SHA-256 of the lock file."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def root(self) -> list[Package]:
        """The packages of the root filesystem."""
        return [p for p in self.packages if p.name not in {self.kernel, self.firmware}]


def load(file: Path, recipe: Recipe, *, committed: bool) -> Lock:
    """Read a lock file; raises `Malformed`."""
    text = file.read_text(encoding="utf-8", errors="replace")
    packages = debs.parse_lock(text)
    kernels = [p.name for p in packages if p.name.startswith("linux-image-")]
    if len(kernels) != 1 or not any(p.name == recipe.packages.firmware for p in packages):
        raise Malformed(f"{file.name}: needs one kernel and the firmware {recipe.packages.firmware}")
    return Lock(packages, kernels[0], recipe.packages.firmware, text, committed)


def relocked_file(repository_lock: bytes) -> Path:
    """Where a lock made on this machine is kept; it holds only as long as the repository's lock stays the same."""
    return paths.home() / "guest" / f"packages-{hashlib.sha256(repository_lock).hexdigest()[:16]}.lock"


def obtain(
    recipe: Recipe, progress: Progress, *, folder: Path | None = None, sources: Mirrors | None = None
) -> tuple[Lock, Mapping[str, Path]]:
    """The lock to build from and its packages' files.

    The repository's lock as long as each version is cached or on the mirror; else a lock resolved anew into an
    untracked file, with a word on what was gone.
    """
    file = (folder or tools.recipe_folder()) / "packages.lock"
    committed = load(file, recipe, committed=True)
    newer = relocked_file(committed.text.encode())
    try:
        return committed, debs.fetch(committed.packages, sources=sources, progress=progress)
    except Gone as gone:
        for package in gone.packages:
            progress(f"gone from the mirror: {package.name} {package.version}")
    if newer.is_file():
        try:
            lock = load(newer, recipe, committed=False)
            files = debs.fetch(lock.packages, sources=sources, progress=progress)
        except (Gone, Malformed):
            progress("the lock made earlier on this machine has gone stale too")
        else:
            progress(f"using the lock made earlier on this machine ({newer})")
            return lock, files
    lock = relock(recipe, newer, progress, sources=sources)
    return lock, debs.fetch(lock.packages, sources=sources, progress=progress)


def relock(recipe: Recipe, target: Path, progress: Progress, *, sources: Mirrors | None = None) -> Lock:
    """Resolve the recipe's packages anew and write the lock to `target`. The image's measurement will be a new one."""
    progress("resolving packages anew: the guest image and its measurements will be new")
    packages = resolve(recipe, sources)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(debs.format_lock(packages, _HEADING.format(what="the guest image")), encoding="utf-8")
    return load(target, recipe, committed=False)


def relock_tools(recipe: Recipe, target: Path, *, sources: Mirrors | None = None) -> None:
    """Resolve the tools anew and write their lock to `target`."""
    text = debs.format_lock(resolve_tools(recipe, sources), _HEADING.format(what="the tools"))
    target.write_text(text, encoding="utf-8")


def resolve(recipe: Recipe, sources: Mirrors | None = None) -> list[Package]:
    """The newest versions of everything the image is made of, by name."""
    return _with_apt(recipe, sources, _resolve_image)


def resolve_tools(recipe: Recipe, sources: Mirrors | None = None) -> list[Package]:
    """The newest versions of the tools and the libraries that they load, by name."""
    return _with_apt(recipe, sources, _resolve_tools)


def _with_apt(
    recipe: Recipe, sources: Mirrors | None, work: Callable[[Recipe, AptRoot], list[Package]]
) -> list[Package]:
    folder = Path(tempfile.mkdtemp(prefix="casemate-apt-"))
    try:
        apt = AptRoot(folder, recipe.suite, sources)
        apt.update()
        return work(recipe, apt)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _resolve_image(recipe: Recipe, apt: AptRoot) -> list[Package]:
    names = set(apt.resolve(recipe.packages.root)) - set(recipe.packages.drop)
    names |= {apt.newest_dependency(recipe.packages.kernel), recipe.packages.firmware}
    return apt.describe(sorted(names))


def _resolve_tools(recipe: Recipe, apt: AptRoot) -> list[Package]:
    # Programs are run one by one: of their dependencies only libraries matter.
    needed = apt.resolve(recipe.tools.root)
    libraries = {name for name in needed if name.startswith(("lib", "zlib")) and name != "libc-bin"}
    return apt.describe(sorted(libraries | set(recipe.tools.root)))
