"""Programs that only tests need: a database server, a proxy, a security token, a browser. Nothing is installed.

An installed program is taken where there is one. Otherwise the machine's own apt says which packages are missing and
fetches them, and they are unpacked into the cache: no root, no change of /etc, no service. An unpacked program starts
by a small script that names the libraries beside it. Run as a module it makes all of them ready.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from casemate.drivers import paths
from casemate.drivers.tools import unpack
from casemate.errors import Unavailable, Unusable

__all__ = ["PROGRAMS", "Missing", "fetched", "find", "installed"]

_TRIPLET = str(sysconfig.get_config_var("MULTIARCH") or "x86_64-linux-gnu")
_LIBRARIES = (f"usr/lib/{_TRIPLET}", f"lib/{_TRIPLET}", "usr/lib", "lib", f"usr/lib/{_TRIPLET}/pulseaudio")
_UNREAD = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/i18n", "usr/share/icons", "usr/lib/locale")
_MAKES = "1"  # of the way a tree is made; part of its name


class Missing(Unusable):
    """A program that is not installed and can't be fetched, because this machine has no apt: the one reason to skip."""


@dataclass(frozen=True)
class Bundle:
    """Packages that are unpacked together; those whose name begins with a word of `spare` are not needed to run."""

    packages: tuple[str, ...]
    spare: tuple[str, ...] = ()


_POSTGRES = Bundle(
    ("postgresql",),
    (
        "libllvm",
        "libz3",
        "perl",
        "libperl",
        "libgdbm",
        "libjson",
        "liblocale",
        "libtypes",
        "ssl-cert",
        "sysstat",
        "openssl",
    ),
)
_SOFTHSM = Bundle(("softhsm2", "patchelf"), ("openssl",))
_HAPROXY = Bundle(("haproxy",))
_CHROMIUM = Bundle(("chromium", "fonts-dejavu-core"))
_SERVER = ("usr/lib/postgresql/*/bin",)

# Program → its bundle, and where it lies below / or below an unpacked tree.
PROGRAMS: dict[str, tuple[Bundle, tuple[str, ...]]] = {
    "postgres": (_POSTGRES, _SERVER),
    "initdb": (_POSTGRES, _SERVER),
    "pg_ctl": (_POSTGRES, _SERVER),
    "haproxy": (_HAPROXY, ("usr/sbin",)),
    "softhsm2-util": (_SOFTHSM, ("usr/bin",)),
    "softhsm": (_SOFTHSM, (f"usr/lib/{_TRIPLET}/softhsm", "usr/lib/softhsm")),  # the PKCS#11 module
    "chromium": (_CHROMIUM, ("usr/lib/chromium", "usr/bin")),
}
_FILES = {"softhsm": "libsofthsm2.so"}


def find(name: str) -> Path:
    """Where the program `name` lies, fetched when needed.

    `Missing` without apt; `Unavailable` when apt is there and fails, which is no reason to skip a test.
    """
    if name not in PROGRAMS:
        raise Unusable(f"no test program {name!r}", hint=f"known are {', '.join(sorted(PROGRAMS))}")
    return installed(name) or fetched(name)


def installed(name: str) -> Path | None:
    """The program as this machine has it."""
    if name == "chromium" and (found := shutil.which("chromium")):
        return Path(found)  # Debian's starter, with its flags
    return _below(Path("/"), name)


def fetched(name: str) -> Path:
    """The program from the cache, which is filled when needed."""
    bundle = PROGRAMS[name][0]
    folder = paths.cache() / "test-programs" / f"{_release()}-{_TRIPLET}-{bundle.packages[0]}-{_MAKES}"
    folder.parent.mkdir(exist_ok=True)
    with _locked(folder.with_suffix(".lock")):
        if not (folder / "starters").is_dir():
            _make(bundle, folder)
    found = folder / "starters" / _FILES.get(name, name)
    if not found.exists():
        raise Unavailable(f"the packages {', '.join(bundle.packages)} bring no {name}")
    return found


def _make(bundle: Bundle, folder: Path) -> None:
    """Fetch and unpack a bundle; all of it is there afterwards, or nothing."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        with tempfile.TemporaryDirectory(prefix=".apt-", dir=folder.parent) as scratch:
            unpack(sorted(_download(bundle, Path(scratch))), folder)
        for place in _UNREAD:
            shutil.rmtree(folder / place, ignore_errors=True)
        starters = folder / "starters.new"
        starters.mkdir()
        for name in (name for name, (of, _) in PROGRAMS.items() if of == bundle):
            _start(folder, name, starters)
        starters.rename(folder / "starters")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


# --- apt -------------------------------------------------------------------------------------------------------------


def _download(bundle: Bundle, scratch: Path) -> list[Path]:
    """The packages that this machine lacks for a bundle: by apt's lists as they are, then by new ones of our own."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise Missing(f"{bundle.packages[0]} is not installed, and there is no apt to fetch it")
    archives = scratch / "archives"
    archives.mkdir()
    try:
        return _fetch(bundle, archives, scratch, [])
    except Unavailable:
        own = ["-o", f"Dir::State::Lists={scratch / 'lists'}"]
        (scratch / "lists" / "partial").mkdir(parents=True)
        _apt(scratch, [*own, "update"])
        return _fetch(bundle, archives, scratch, own)


def _fetch(bundle: Bundle, archives: Path, scratch: Path, options: list[str]) -> list[Path]:
    planned = _apt(scratch, [*options, "-s", "-y", "--no-install-recommends", "install", *bundle.packages])
    new = re.findall(r"(?m)^Inst (\S+) (?:\[[^\]]*\] )?\((\S+) ", planned)
    wanted = [f"{name}={version}" for name, version in new if not name.startswith(bundle.spare or ("\0",))]
    if not wanted:
        raise Unavailable(f"apt calls {', '.join(bundle.packages)} installed, but the programs are not there")
    _apt(scratch, [*options, "download", *wanted], cwd=archives)
    return list(archives.glob("*.deb"))


def _apt(scratch: Path, words: list[str], cwd: Path | None = None) -> str:
    settings = ("APT::Sandbox::User=root", "Debug::NoLocking=true", f"Dir::Cache={scratch}", "Acquire::Retries=3")
    options = [word for setting in settings for word in ("-o", setting)]
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    argv = ["apt-get", "-q", *options, *words]
    said = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment, cwd=cwd or scratch)
    if said.returncode:
        errors = [line for line in said.stderr.splitlines() if line.startswith("E:")] or ["E: no reason was given"]
        raise Unavailable(f"apt-get could not get test programs: {errors[0][3:]}", hint="is the network up?")
    return said.stdout


# --- unpacked trees --------------------------------------------------------------------------------------------------


def _below(tree: Path, name: str) -> Path | None:
    """A program in a tree; of several versions the newest."""
    file = _FILES.get(name, name)
    found = [path for place in PROGRAMS[name][1] for path in tree.glob(f"{place}/{file}")]
    return max(found, key=_version, default=None)


def _version(path: Path) -> int:
    return max((int(part) for part in path.parts if part.isdigit()), default=0)


def _start(tree: Path, name: str, starters: Path) -> None:
    """Make what runs (or, for a library, loads) a program of the tree from anywhere."""
    program = _below(tree, name)
    if program is None:
        raise Unavailable(f"no {name} in the packages that were fetched")
    places = [place for place in _LIBRARIES if (tree / place).is_dir()]
    libraries = ":".join(str(tree / place) for place in places)
    _demand_whole(program, libraries)
    if name in _FILES:
        patch: list[str | Path] = [tree / "usr/bin/patchelf", "--force-rpath", "--set-rpath", libraries, program]
        subprocess.run(patch, check=True)  # whoever loads it does not know the libraries beside it
        (starters / _FILES[name]).symlink_to(program)
        return
    # Every path begins at the starter's own, so that a copy of the tree works as well.
    lines = [
        "#!/bin/sh",
        'tree="${0%/starters/*}"',
        f'export LD_LIBRARY_PATH="{":".join("$tree/" + p for p in places)}"',
    ]
    more = ""
    if name == "softhsm2-util":
        more = f' --module "$tree/{_inside(tree, "softhsm")}"'
    if name == "chromium" and not Path("/etc/fonts/fonts.conf").exists():
        lines.append(f'export FONTCONFIG_FILE="{_fonts(tree)}"')
    lines.append(f'exec "$tree/{_inside(tree, name)}"{more} "$@"')
    (starters / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    (starters / name).chmod(0o755)


def _inside(tree: Path, name: str) -> Path:
    found = _below(tree, name)
    return found.relative_to(tree) if found else Path(name)


def _demand_whole(program: Path, libraries: str) -> None:
    said = subprocess.run(
        ["ldd", program],
        capture_output=True,
        text=True,
        check=False,
        env={"LD_LIBRARY_PATH": libraries, "PATH": "/usr/bin:/bin"},
    )
    lost = re.findall(r"(?m)^\s*(\S+) => not found", said.stdout)
    if lost:
        raise Unavailable(f"{program.name} lacks libraries: {', '.join(sorted(set(lost)))}")


def _fonts(tree: Path) -> Path:
    made = tree / "fonts.conf"
    made.write_text(
        f'<?xml version="1.0"?><fontconfig><dir>{tree}/usr/share/fonts</dir>'
        f'<include ignore_missing="yes">{tree}/etc/fonts/conf.d</include>'
        f"<cachedir>{tree}/fonts.cache</cachedir></fontconfig>",
        encoding="utf-8",
    )
    return made


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _release() -> str:
    known = Path("/etc/os-release")
    found = re.search(r'(?m)^VERSION_CODENAME="?([a-z]+)', known.read_text("utf-8") if known.exists() else "")
    return found[1] if found else "unknown"


def main() -> int:
    """Make every program ready, and say which were fetched; the tests say what they miss."""
    for name in PROGRAMS:
        try:
            if installed(name) is None:
                begun = not (paths.cache() / "test-programs").is_dir()
                found = fetched(name)
                if begun:
                    print(f"test programs: unpacked below {found.parents[2]}", flush=True)
        except (Unavailable, Unusable) as error:
            print(f"test programs: no {name}: {error}", file=sys.stderr, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
