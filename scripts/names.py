"""Names that may not stand in a tracked file: hosts of package registries and mirrors, and places of one machine.

A clone must work behind any mirror and in any folder, so both come from the machine's own configuration. The patterns
are written with character classes, so that this file does not match itself.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOSTS = (
    r"[a-z0-9]*[.]?debia[n][.](org|net)",
    r"ubunt[u][.]com",
    r"pyp[i][.]org",
    r"pythonhoste[d]",
    r"registr[y][.]npm",
    r"npmj[s][.]",
    r"crate[s][.]io",
    r"prox[y][.]golang",
    r"ghc[r][.]io",
    r"qua[y][.]io",
    r"gc[r][.]io",
    r"docke[r][.]io",
)
PLACES = (
    r"(?<![a-z0-9.\-_}>)])/wor[k]/",
    r"(?<![a-z0-9.\-_])/roo[t]/",
    r"/tm[p]/casemat[e]",
)
PATTERN = re.compile("|".join(HOSTS + PLACES), re.IGNORECASE)
LOCK = re.compile(r"https?[:]//")


def main() -> int:
    """Print each line that matches."""
    bad = 0
    for name in tracked():
        path = ROOT / name
        if path.is_symlink() or not path.is_file():
            continue
        data = path.read_bytes()
        if b"\0" in data[:4096]:
            continue
        for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
            lock = name.startswith("requirements/") or name.endswith(".lock")
            hit = PATTERN.search(line) or (lock and LOCK.search(line))
            if hit:
                bad += 1
                print(f"{name}:{number}: {hit[0]}")
    return 1 if bad else 0


def tracked() -> list[str]:
    """Files that git tracks or would add."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in done.stdout.split("\0") if name]


if __name__ == "__main__":
    sys.exit(main())
