"""Every gate of `make check`, all of them each time, each with its seconds; exit code 1 if one fails.

mypy runs without its cache: a warm one has missed a wrong signature of a TEE room.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / ".venv" / "bin"
PYTHON = str(BIN / "python")
GATES: tuple[tuple[str, list[str]], ...] = (
    ("format", [str(BIN / "ruff"), "format", "--check", "-q", "."]),
    ("lint", [str(BIN / "ruff"), "check", "-q", "."]),
    ("types", [str(BIN / "mypy"), "--no-error-summary", "--cache-dir", os.devnull]),
    ("walls", [str(BIN / "lint-imports"), "--no-cache"]),
    ("sizes", [PYTHON, "scripts/sizes.py"]),
    ("names", [PYTHON, "scripts/names.py"]),
    ("reference", [PYTHON, "scripts/reference.py"]),
    ("locks", [PYTHON, "scripts/lock.py", "--check"]),
    ("links", [PYTHON, "scripts/links.py"]),
)


def main() -> int:
    """Run each gate (or those named as arguments); print what a failed one said."""
    wanted = set(sys.argv[1:]) or {name for name, _ in GATES}
    failed = []
    for name, command in GATES:
        if name not in wanted:
            continue
        begun = time.monotonic()
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        good = done.returncode == 0
        print(f"{'✓' if good else '✗'} {name:<10} {time.monotonic() - begun:5.1f} s", flush=True)
        if not good:
            failed.append(name)
            print((done.stdout + done.stderr).strip(), flush=True)
    print(f"check: {', '.join(failed)} failed" if failed else "check: all good")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
