"""Resolve the Python packages anew and write the hash-locked files in requirements/ (`make lock`).

The files carry names, versions and hashes only: no host, no path, no command line. With --check nothing is resolved or
written: what pyproject.toml asks for must be locked, at a version that it allows (a gate, without network).
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / ".venv" / "bin"
FOLDER = Path("requirements")
COMPILE = ["pip", "compile", "-q", "--universal", "--generate-hashes", "--no-emit-index-url", "--no-header"]


def main() -> int:
    """Write bootstrap.txt (uv itself), dev.txt and run.txt; run.txt has dev.txt's versions."""
    if "--check" in sys.argv:
        return check()
    bootstrap = ROOT / FOLDER / "bootstrap.txt"
    pip = [str(BIN / "python"), "-m", "pip", "-q", "install"]
    subprocess.run([*pip, "--require-hashes", "-r", str(bootstrap)], check=True)
    extra = sys.argv[1:]  # for example --upgrade
    compile_file([str(FOLDER / "bootstrap.in"), *extra], "bootstrap.txt")
    compile_file(["pyproject.toml", "--all-extras", "--group", "dev", *extra], "dev.txt")
    compile_file(["pyproject.toml", "-c", str(FOLDER / "dev.txt"), *extra], "run.txt")
    return 0


def check() -> int:
    """Print each requirement that the locks don't meet."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    run: list[str] = project["project"]["dependencies"]
    bad = [f"run.txt: {text}" for text in unmet(run, "run.txt")]
    named = [line for lines in project["project"]["optional-dependencies"].values() for line in lines]
    bad += [f"dev.txt: {text}" for text in unmet([*run, *named, *project["dependency-groups"]["dev"]], "dev.txt")]
    for line in bad:
        print(f"requirements/{line} is not locked; run `make lock`")
    return 1 if bad else 0


def unmet(requirements: list[str], lock: str) -> list[str]:
    """Requirements without a pin that satisfies them."""
    text = (ROOT / FOLDER / lock).read_text()
    pins = dict(re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", text, re.MULTILINE))
    found = [(Requirement(line), line) for line in requirements]
    locked = [(asked, line, pins.get(canonicalize_name(asked.name))) for asked, line in found]
    return [line for asked, line, pin in locked if pin is None or not asked.specifier.contains(pin)]


def compile_file(arguments: list[str], name: str) -> None:
    """One lock file; versions that are locked already stay, unless --upgrade is given."""
    command = [str(BIN / "uv"), *COMPILE, "--no-annotate", *arguments, "-o", str(FOLDER / name)]
    subprocess.run(command, cwd=ROOT, check=True)
    print(f"{FOLDER / name}: {(ROOT / FOLDER / name).read_text().count('==')} packages")


if __name__ == "__main__":
    sys.exit(main())
