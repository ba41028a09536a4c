"""Locked Debian packages: the lock file, the machine's mirrors, and a cache by digest.

A lock file has one package a line: ``name version architecture archive file size sha256``, where `archive` is `debian`
or `debian-security` and `file` is relative to that archive. It never names a host: the mirror is the one that the
machine's own apt uses, read when it is needed. Fetching goes through apt's own helper, so proxies, credentials and
transports that the machine has set up for apt hold here too; what arrives counts only by its SHA-256.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from casemate.drivers import lastwords, paths
from casemate.errors import Malformed, Unavailable, Unusable

__all__ = ["Gone", "Mirrors", "Package", "fetch", "format_lock", "mirrors", "parse_lock"]

_HELPER = Path("/usr/lib/apt/apt-helper")
_MAX_LOCK = 1 << 20
_MAX_PACKAGE = 1 << 30
_NAME = re.compile(r"[a-z0-9][a-z0-9.+-]{1,99}")
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+~:-]{0,99}")
_FILE = re.compile(r"pool(/[A-Za-z0-9][A-Za-z0-9.+~%_-]*){3,6}\.deb")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_ARCHIVES = ("debian", "debian-security")


class Gone(Unavailable):
    """Locked versions that the mirror no longer has. `packages` lists them."""

    def __init__(self, packages: tuple[Package, ...]) -> None:
        self.packages = packages
        names = ", ".join(f"{p.name} {p.version}" for p in packages)
        super().__init__(f"no longer on this machine's mirror: {names}")


@dataclass(frozen=True)
class Package:
    """One locked package: `size` in bytes, `sha256` as lower-case hex."""

    name: str
    version: str
    architecture: str
    archive: str
    file: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Mirrors:
    """Base addresses without a closing slash, and the keyring file that apt uses for them."""

    debian: str
    security: str
    keyring: str

    def address(self, package: Package) -> str:
        """Where `package` is to be found."""
        base = self.debian if package.archive == "debian" else self.security
        return f"{base}/{package.file.replace('~', '%7e').replace('+', '%2b')}"


def parse_lock(text: str) -> tuple[Package, ...]:
    """The packages of a lock file, in its order. Raises only `Malformed`, with the line."""
    if len(text) > _MAX_LOCK:
        raise Malformed(f"lock file: {len(text)} characters, at most {_MAX_LOCK} allowed")
    found: dict[str, Package] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.startswith("#"):
            continue
        package = _package(line, number)
        if package.name in found:
            raise Malformed(f"lock file, line {number}: {package.name} is locked twice")
        found[package.name] = package
    if not found:
        raise Malformed("lock file: no package in it")
    return tuple(found.values())


def _package(line: str, number: int) -> Package:
    fields = line.split(" ")
    where = f"lock file, line {number}"
    if len(fields) != 7:
        raise Malformed(f"{where}: {len(fields)} fields, not name version architecture archive file size sha256")
    name, version, architecture, archive, file, size, sha256 = fields
    if not _NAME.fullmatch(name) or not _VERSION.fullmatch(version):
        raise Malformed(f"{where}: no package name and version")
    if architecture not in {"amd64", "all"}:
        raise Malformed(f"{where}: architecture is neither amd64 nor all")
    if archive not in _ARCHIVES:
        raise Malformed(f"{where}: archive is neither {' nor '.join(_ARCHIVES)}")
    if not _FILE.fullmatch(file):
        raise Malformed(f"{where}: no path of a pool file")
    if not re.fullmatch(r"[1-9][0-9]{0,9}", size) or int(size) > _MAX_PACKAGE:
        raise Malformed(f"{where}: no size between 1 and {_MAX_PACKAGE}")
    if not _DIGEST.fullmatch(sha256):
        raise Malformed(f"{where}: no SHA-256")
    return Package(name, version, architecture, archive, file, int(size), sha256)


def format_lock(packages: Iterable[Package], heading: str) -> str:
    """The text of a lock file, `heading` as comment lines; `parse_lock` reads it back."""
    lines = [f"# {line}" for line in heading.splitlines()]
    for p in packages:
        lines.append(f"{p.name} {p.version} {p.architecture} {p.archive} {p.file} {p.size} {p.sha256}")
    return "\n".join(lines) + "\n"


def mirrors(etc: Path = Path("/etc/apt")) -> Mirrors:
    """The machine's Debian mirrors, from its deb822 and one-line sources; without any, `Unusable`."""
    debian = security = keyring = ""
    for uri, suite, key in _sources(etc):
        base = uri.rstrip("/")
        if suite.endswith("-security") or suite.endswith("/updates"):
            security = security or base
        elif re.fullmatch(r"(bookworm|trixie|stable|oldstable)(-updates|-backports)?", suite):
            debian = debian or base
            keyring = keyring or key
    if not debian:
        raise Unusable(f"no Debian mirror in {etc}", hint="add a source for Debian 12 or 13 to apt")
    if not security:
        security = (debian.removesuffix("/debian") if debian.endswith("/debian") else debian) + "/debian-security"
    return Mirrors(debian, security, keyring or "/usr/share/keyrings/debian-archive-keyring.gpg")


def _sources(etc: Path) -> Iterable[tuple[str, str, str]]:
    """(address, suite, keyring or "") of each binary source, in apt's order of files."""
    parts = etc / "sources.list.d"
    files = [etc / "sources.list", *sorted(parts.glob("*.list"), key=str), *sorted(parts.glob("*.sources"), key=str)]
    for file in files:
        if not file.is_file():
            continue
        text = file.read_text(encoding="utf-8", errors="replace")
        yield from (_deb822(text) if file.suffix == ".sources" else _one_line(text))


def _one_line(text: str) -> Iterable[tuple[str, str, str]]:
    pattern = re.compile(r"^\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)", re.MULTILINE)
    for options, uri, suite in pattern.findall(text):
        key = re.search(r"signed-by=(/\S+)", options)
        yield uri, suite, key[1] if key else ""


def _deb822(text: str) -> Iterable[tuple[str, str, str]]:
    for stanza in re.split(r"\n\s*\n", re.sub(r"(?m)^#.*\n?", "", text)):
        fields = {
            name.lower(): " ".join(value.split())
            for name, value in re.findall(r"(?m)^([A-Za-z-]+):((?:.*)(?:\n[ \t].*)*)", stanza)
        }
        if (
            fields.get("enabled", "yes").lower() in {"no", "false", "off", "0"}
            or "deb" not in fields.get("types", "").split()
        ):
            continue
        key = fields.get("signed-by", "")
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                yield uri, suite, key if key.startswith("/") else ""


def fetch(
    packages: Iterable[Package], *, sources: Mirrors | None = None, progress: Callable[[str], None] | None = None
) -> dict[str, Path]:
    """Package name → file in the cache, each with the locked digest.

    `Gone` lists the versions that neither the cache nor the mirror has; `Unavailable` is any other failure.
    """
    folder = paths.cache() / "debs"
    folder.mkdir(exist_ok=True)
    wanted = list(packages)
    found = {p.name: folder / f"{p.sha256}.deb" for p in wanted}
    missing = [p for p in wanted if not _intact(found[p.name], p)]
    if missing:
        if progress:
            progress(f"fetching {len(missing)} packages, {sum(p.size for p in missing) / 1e6:.1f} MB")
        _download(missing, folder, sources or mirrors())
    return found


def _intact(file: Path, package: Package) -> bool:
    # A file gets its name only after its digest was right; the size catches a disk that was full.
    try:
        return file.stat().st_size == package.size
    except FileNotFoundError:
        return False


def _download(packages: list[Package], folder: Path, sources: Mirrors) -> None:
    if not _HELPER.exists():
        raise Unusable("this machine has no apt", hint="build the guest image on Debian 12 or 13")
    # apt leaves files of other names behind when it fails, so it works in a folder that goes away.
    work = Path(tempfile.mkdtemp(prefix=".fetch-", dir=folder))
    partial = {p.name: work / p.sha256 for p in packages}
    words = [w for p in packages for w in (sources.address(p), str(partial[p.name]), f"SHA256:{p.sha256}")]
    try:
        said = subprocess.run(
            [_HELPER, "-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=1", "download-file", *words],
            capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C.UTF-8"},
        )  # fmt: skip
        bad = [p for p in packages if not _keep(partial[p.name], p, folder)]
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if not bad:
        return
    # One package that is gone makes apt give up the rest as well; only what is known to be absent is reported as gone.
    lost = tuple(p for p in bad if _absent(said.stderr + said.stdout, sources.address(p)))
    if lost:
        raise Gone(lost)
    last = lastwords.of(said).splitlines()[-1]
    raise Unavailable(f"cannot fetch {bad[0].name} {bad[0].version}: {last}", hint="check the network and apt's mirror")


def _keep(file: Path, package: Package, folder: Path) -> bool:
    if not file.is_file() or file.stat().st_size != package.size:
        return False
    with file.open("rb") as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() != package.sha256:
            return False
    file.chmod(0o644)
    file.replace(folder / f"{package.sha256}.deb")
    return True


def _absent(messages: str, address: str) -> bool:
    pattern = rf"(Failed to fetch|Err:\d+) {re.escape(address)}\b[^\n]*(\n[^\n]*)?(404|410|Not Found|File not found)"
    return re.search(pattern, messages) is not None
