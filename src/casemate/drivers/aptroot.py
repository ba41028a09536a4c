"""A private apt: resolves packages of one Debian release without touching the machine's own apt.

It has its own lists and an empty package status, takes the machine's mirror and keyring, and installs nothing. Used to
write lock files.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

from casemate.drivers import lastwords
from casemate.drivers.debs import Mirrors, Package, mirrors
from casemate.errors import Unavailable

__all__ = ["AptRoot"]


class AptRoot:
    """apt on a folder of its own, for `suite` with its updates and security archives."""

    def __init__(self, folder: Path, suite: str, sources: Mirrors | None = None) -> None:
        self.folder = folder
        self.suite = suite
        self.sources = sources or mirrors()
        for part in ("lists/partial", "cache/archives/partial", "preferences.d"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / "status").touch()
        signed = f"deb [signed-by={self.sources.keyring}]"
        lines = [
            f"{signed} {self.sources.debian} {suite} main",
            f"{signed} {self.sources.debian} {suite}-updates main",
            f"{signed} {self.sources.security} {suite}-security main",
        ]
        (folder / "sources.list").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def update(self) -> None:
        """Fetch the package lists and check their signatures."""
        self._run("apt-get", "update")

    def resolve(self, names: Iterable[str]) -> list[str]:
        """The names that installing `names` into an empty system brings, dependencies first."""
        out = self._run("apt-get", "-s", "install", *names)
        return re.findall(r"(?m)^Inst (\S+?)(?::\S+)? ", out)

    def newest_dependency(self, name: str) -> str:
        """What a metapackage (`linux-image-cloud-amd64`) stands for: the first of its dependencies."""
        found = re.search(r"(?m)^Depends: ([a-z0-9.+-]+)", self._run("apt-cache", "--no-all-versions", "show", name))
        if not found:
            raise Unavailable(f"package {name} of {self.suite} depends on nothing")
        return found[1]

    def describe(self, names: Iterable[str]) -> list[Package]:
        """The newest version of each package, as a lock records it, in the order of `names`."""
        wanted = list(names)
        stanzas = self._run("apt-cache", "--no-all-versions", "show", *wanted).strip().split("\n\n")
        found = {package.name: package for package in map(_package, stanzas)}
        lost = [name for name in wanted if name not in found]
        if lost:
            raise Unavailable(f"the mirror lists no package {', '.join(lost)}")
        return [found[name] for name in wanted]

    def _run(self, program: str, *words: str) -> str:
        settings = {
            "Dir::Etc::SourceList": self.folder / "sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::Etc::Preferences": "/dev/null",
            "Dir::Etc::PreferencesParts": self.folder / "preferences.d",
            "Dir::State::Lists": self.folder / "lists",
            "Dir::State::status": self.folder / "status",
            "Dir::Cache": self.folder / "cache",
            "APT::Install-Recommends": "false",
            "APT::Architecture": "amd64",
            "APT::Architectures": "amd64",
            "APT::Sandbox::User": "root",
            "APT::Default-Release": "",
            "Debug::NoLocking": "true",
        }
        options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
        said = subprocess.run(
            [program, "-q", *options, *words], capture_output=True, text=True, check=False, env=_environment()
        )
        if said.returncode:
            errors = [line for line in said.stderr.splitlines() if line.startswith("E:")]
            why = errors[0] if errors else lastwords.of(said)
            raise Unavailable(f"{program} {words[0]}: {why}", hint="check the network and apt")
        return said.stdout


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}


def _package(stanza: str) -> Package:
    fields = dict(re.findall(r"(?m)^([A-Za-z0-9-]+): (.*)$", stanza))
    try:
        file = fields["Filename"]
        # The security archive keeps its pool apart by this prefix, on every mirror.
        archive = "debian-security" if file.startswith("pool/updates/") else "debian"
        return Package(
            fields["Package"], fields["Version"], fields["Architecture"], archive, file,
            int(fields["Size"]), fields["SHA256"],
        )  # fmt: skip
    except KeyError as error:
        raise Unavailable(f"apt lists a package without {error.args[0]}") from error
