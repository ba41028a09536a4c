#!/usr/bin/env python3
"""Set-up from nothing: Debian packages, then `.venv` with hash-locked Python packages. Standard library only.

    python3 scripts/setup.py             everything that is missing (what `make setup` runs)
    python3 scripts/setup.py --packages  only the Debian packages (this part needs root or sudo)

A second run does nothing: programs are looked for, and a stamp in `.venv` names the locks that it was made from. Debian
12's QEMU is too old; a newer one comes from its backports, read through a private source list made from the machine's
own apt sources, so that /etc/apt stays as it is. Exit codes: 0 done, 1 a download failed, 2 something must be done
first.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / ".casemate-setup"
LOCK = ROOT / "requirements" / "dev.txt"
OLDEST_PYTHON = (3, 11)
OLDEST_QEMU = 10
RELEASES = {"bookworm", "trixie"}
QEMU = "qemu-system-x86_64"
# program → the Debian package that brings it
PROGRAMS = {
    QEMU: "qemu-system-x86",
    "swtpm": "swtpm",
    "swtpm_setup": "swtpm-tools",
    "mke2fs": "e2fsprogs",
    "zstd": "zstd",
    "xz": "xz-utils",
    "curl": "curl",
}
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
APT = ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3"]


class Stop(Exception):
    """Set-up can't go on; the message is a sentence, the code the exit code."""

    def __init__(self, sentence: str, code: int) -> None:
        super().__init__(sentence)
        self.code = code


def main() -> int:
    """Run the parts that were asked for."""
    only_packages = sys.argv[1:] == ["--packages"]
    if sys.argv[1:] and not only_packages:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        did = install_packages(missing_packages())
        if not only_packages:
            did |= make_environment()
    except Stop as stop:
        print(f"set-up: {stop}", file=sys.stderr)
        return stop.code
    if not did:
        say("nothing to do")
    return 0


def say(text: str) -> None:
    """One line of progress."""
    print(f"set-up: {text}", flush=True)


# --- Debian packages -------------------------------------------------------------------------------------------------


def missing_packages() -> list[str]:
    """Packages whose programs are absent or too old, in a fixed order."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    wanted = [package for program, package in PROGRAMS.items() if not shutil.which(program, path=path)]
    if PROGRAMS[QEMU] not in wanted and qemu_version() < OLDEST_QEMU:
        wanted.insert(0, PROGRAMS[QEMU])
    if not has_ensurepip():
        wanted.append("python3-venv")
    return wanted


def qemu_version() -> int:
    """Major version of the installed QEMU, 0 when it does not say."""
    answer = subprocess.run([QEMU, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"version (\d+)", answer)
    return int(found[1]) if found else 0


def has_ensurepip() -> bool:
    """Whether this Python can make an environment with pip in it (Debian splits that off)."""
    probe = [sys.executable, "-c", "import ensurepip, venv"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


def install_packages(wanted: list[str]) -> bool:
    """Install what is missing; False when there was nothing to do."""
    if not wanted:
        return False
    release = codename()
    backported = [p for p in wanted if release == "bookworm" and p == PROGRAMS[QEMU]]
    plain = [p for p in wanted if p not in backported]
    root = root_prefix(plain, backported)
    say("installing Debian packages: " + ", ".join(wanted))
    if plain:
        apt(root, [], ["update"], "read the package lists")
        apt(root, [], install(plain), "install " + ", ".join(plain))
    if backported:
        with tempfile.TemporaryDirectory(prefix="casemate-apt-") as folder:
            options = backports(Path(folder))
            apt(root, options, ["update"], "read the package lists of backports")
            apt(root, options, [*install(backported), "-t", f"{release}-backports"], "install QEMU from backports")
    left = missing_packages()
    if left:
        raise Stop(f"after the installation these are still missing or too old: {', '.join(left)}", 1)
    return True


def codename() -> str:
    """The Debian release of this machine."""
    release = Path("/etc/os-release")
    text = release.read_text(encoding="utf-8") if release.exists() else ""
    found = re.search(r"^VERSION_CODENAME=\"?([a-z]+)", text, re.MULTILINE)
    name = found[1] if found else "unknown"
    if name not in RELEASES or not shutil.which("apt-get"):
        programs = ", ".join(PROGRAMS)
        raise Stop(f"this is not Debian 12 or 13 ({name}); install these programs by hand: {programs}", 2)
    return name


def root_prefix(plain: list[str], backported: list[str]) -> list[str]:
    """[] as root, a sudo that asks nothing, or `Stop` with the line to run."""
    if os.geteuid() == 0:
        return []
    if (
        shutil.which("sudo")
        and subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False).returncode == 0
    ):
        return ["sudo", "-n"]
    # One apt line cannot reach backports without a change to /etc/apt, so there this program is the line.
    by_us = f"python3 {Path(__file__).resolve()} --packages"
    line = by_us if backported else " ".join(["apt-get", *install(plain)])
    raise Stop(f"packages are missing and this user can't install them; run this as root:\n  {line}", 2)


def install(packages: list[str]) -> list[str]:
    """The arguments of apt-get that install packages and nothing that they merely recommend."""
    return ["install", "-y", "--no-install-recommends", *packages]


def apt(root: list[str], options: list[str], arguments: list[str], purpose: str) -> None:
    """Run apt-get without questions; an update is tried twice."""
    command = [*root, "env", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C", *APT, *options, *arguments]
    tries = 2 if arguments == ["update"] else 1
    for _ in range(tries):
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode == 0 and not re.search(r"^(E:|W: Failed to fetch)", done.stderr, re.MULTILINE):
            return
    if done.returncode == 0:
        return  # some lists are old, or a log could not be written; what is installed says whether that matters
    errors = [line for line in done.stderr.splitlines() if line.startswith(("E:", "W:"))] or ["no reason was given"]
    raise Stop(f"apt-get could not {purpose} (is the network up?): {errors[-1]}", 1)


def backports(folder: Path) -> list[str]:
    """Options that make apt read main, updates and backports from this machine's own mirror, and nothing else."""
    listed = subprocess.run(
        ["apt-get", "indextargets", "Created-By: Packages", "--format", "$(RELEASE)|$(REPO_URI)|$(COMPONENT)"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    mirrors = [
        uri for suite, uri, part in (row.split("|") for row in listed.split()) if (suite, part) == ("bookworm", "main")
    ]
    if not mirrors:
        raise Stop("apt has no source for the release itself (bookworm main)", 2)
    signed = f"[signed-by={KEYRING}] " if Path(KEYRING).exists() else ""
    suites = ("bookworm", "bookworm-updates", "bookworm-backports")
    sources = folder / "sources.list"
    sources.write_text("".join(f"deb {signed}{mirrors[0]} {suite} main\n" for suite in suites), encoding="ascii")
    (folder / "lists" / "partial").mkdir(parents=True)
    folder.chmod(0o755)  # apt fetches as a user of its own
    settings = {
        "Dir::Etc::SourceList": sources,
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State::Lists": folder / "lists",
        "Dir::Cache::pkgcache": "",
        "Dir::Cache::srcpkgcache": "",
    }
    return [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]


# --- Python packages -------------------------------------------------------------------------------------------------


def make_environment() -> bool:
    """Make or renew `.venv`; False when its stamp says that it is up to date."""
    if sys.version_info < OLDEST_PYTHON:
        raise Stop(f"Python {'.'.join(map(str, OLDEST_PYTHON))} or newer is needed", 2)
    stamp = fingerprint()
    python = VENV / "bin" / "python"
    if STAMP.exists() and STAMP.read_text(encoding="ascii") == stamp and python.exists():
        return False
    if not python.exists() or not works(python):
        say("making .venv")
        run([sys.executable, "-m", "venv", "--clear", str(VENV)], "make .venv")
    say(f"installing Python packages, each by its hash ({LOCK.relative_to(ROOT)})")
    pip = [str(python), "-m", "pip", "-q", "--disable-pip-version-check", "--no-input", "install"]
    run([*pip, "--require-hashes", "-r", str(LOCK)], "install the locked Python packages")
    run([*pip, "--no-deps", "--no-build-isolation", "--no-index", "-e", str(ROOT)], "install casemate itself")
    STAMP.write_text(stamp, encoding="ascii")
    return True


def fingerprint() -> str:
    """What the environment depends on: the locks, the project file, the interpreter and the place."""
    parts = [LOCK.read_bytes(), (ROOT / "pyproject.toml").read_bytes(), sys.version.encode(), os.fsencode(ROOT)]
    return hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def works(python: Path) -> bool:
    """Whether an existing environment still starts and has pip."""
    try:
        return subprocess.run([str(python), "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def run(command: list[str], purpose: str) -> None:
    """Run a program quietly; its last words become the sentence when it fails."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines() or ["no reason was given"]
        raise Stop(f"could not {purpose}: {words[-1]}", 1)


if __name__ == "__main__":
    sys.exit(main())
