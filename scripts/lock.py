"""Resolve the Python packages anew and write the hash-locked files in requirements/ (`make lock`).

The files carry names, versions and hashes only: no host, no path, no command line.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / ".venv" / "bin"
FOLDER = Path("requirements")
COMPILE = ["pip", "compile", "-q", "--universal", "--generate-hashes", "--no-emit-index-url", "--no-header"]


def main() -> int:
    """Write bootstrap.txt (uv itself), dev.txt and run.txt; run.txt has dev.txt's versions."""
    bootstrap = ROOT / FOLDER / "bootstrap.txt"
    pip = [str(BIN / "python"), "-m", "pip", "-q", "install"]
    subprocess.run([*pip, "--require-hashes", "-r", str(bootstrap)], check=True)
    extra = sys.argv[1:]  # for example --upgrade
    compile_file([str(FOLDER / "bootstrap.in"), *extra], "bootstrap.txt")
    compile_file(["pyproject.toml", "--group", "dev", *extra], "dev.txt")
    compile_file(["pyproject.toml", "-c", str(FOLDER / "dev.txt"), *extra], "run.txt")
    return 0


def compile_file(arguments: list[str], name: str) -> None:
    """One lock file; versions that are locked already stay, unless --upgrade is given."""
    command = [str(BIN / "uv"), *COMPILE, "--no-annotate", *arguments, "-o", str(FOLDER / name)]
    subprocess.run(command, cwd=ROOT, check=True)
    print(f"{FOLDER / name}: {(ROOT / FOLDER / name).read_text().count('==')} packages")


if __name__ == "__main__":
    sys.exit(main())
