"""The demo service's Debian packages: locked by version and SHA-256, resolved anew only when a version is gone."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from casemate.drivers import debs, tools
from casemate.drivers.aptroot import AptRoot
from casemate.errors import Unavailable

LOCK = Path(__file__).parent / "packages.lock"
WANTED = ("nginx",)
SUITE = "trixie"
# Of what apt adds, the service runs on these alone: the program, its modules' libraries and libc.
KEPT = ("base-files", "libc6", "libcrypt1", "libpcre2-8-0", "libssl3t64", "libzstd1", "nginx", "zlib1g")


def resolve() -> list[debs.Package]:
    """The newest versions of the kept packages."""
    with tempfile.TemporaryDirectory(prefix="casemate-apt-") as folder:
        apt = AptRoot(Path(folder), SUITE)
        apt.update()
        known = set(apt.resolve(WANTED)) | {"base-files"}
        missing = set(KEPT) - known
        if missing:
            raise Unavailable(f"nginx no longer depends on {', '.join(sorted(missing))}")
        return apt.describe(KEPT)


def unpack(target: Path, say: Callable[[str], None]) -> None:
    """Unpack the locked packages into `target`; when the mirror has newer ones only, say which and take those."""
    packages: list[debs.Package] = list(debs.parse_lock(LOCK.read_text()))
    try:
        files = debs.fetch(packages, progress=say)
    except debs.Gone as gone:
        say(f"{gone}; taking the newest versions instead")
        packages = resolve()
        files = debs.fetch(packages, progress=say)
    # base-files first: its links make /lib and /bin parts of /usr.
    ordered = sorted(packages, key=lambda p: (p.name != "base-files", p.name))
    tools.unpack((files[p.name] for p in ordered), target)


if __name__ == "__main__":
    heading = "Packages of the demo's nginx image, locked.\nWritten by `python -m examples.demo.packages`."
    LOCK.write_text(debs.format_lock(resolve(), heading))
    print(f"written: {LOCK}", file=sys.stderr)
