"""Fuzz the parsers: every target (or those named) gets an equal share of the time, one process at a time.

Corpora and crashes are kept in build/fuzz/<target>. A crash is an exception that is not the parser's own, more than
1 s of CPU for one input, or 200 MiB more memory. Exit code 1 when there was one.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from fuzz.child import TIMEOUT
from fuzz.target import TOGETHER, known

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "fuzz"


@dataclass
class Outcome:
    """What came of one target: inputs run, peak memory, crashes (files), and what libFuzzer said last."""

    runs: int = 0
    peak_mib: int = 0
    crashes: tuple[Path, ...] = ()
    words: str = ""


def main() -> int:
    """Run and report."""
    options = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__.splitlines()[0] if __doc__ else "")
    options.add_argument("targets", nargs="*", help="names of targets; all when none is given")
    options.add_argument("--seconds", type=int, default=1800, help="for all targets together")
    options.add_argument("--folder", type=Path, default=FOLDER)
    options.add_argument("--together", action="store_true", help="all in one process: a short look at each")
    options.add_argument("--list", action="store_true")
    asked = options.parse_args()
    names = asked.targets or list(known())
    if asked.list:
        print("\n".join(names))
        return 0
    if unknown := sorted(set(names) - set(known())):
        options.error(f"no such target: {', '.join(unknown)}")
    names = [TOGETHER] if asked.together else names
    share = max(1, asked.seconds // len(names))
    failed = []
    for name in names:
        got = fuzz(name, asked.folder / name, share)
        print(f"{'✗' if got.crashes else '✓'} {name:<24} {got.runs:>9} runs  {got.peak_mib:>4} MiB", flush=True)
        for crash in got.crashes:
            print(f"    {crash}", flush=True)
        if got.crashes:
            failed.append(name)
            print(got.words, flush=True)
    print(
        f"fuzz: {len(names)} targets, {share} s each; " + (f"crashes in {', '.join(failed)}" if failed else "no crash")
    )
    return 1 if failed else 0


def fuzz(name: str, folder: Path, seconds: int) -> Outcome:
    """One target for `seconds`; goes on after an input that was slow only because the machine was busy."""
    folder.mkdir(parents=True, exist_ok=True)
    deadline, found = time.monotonic() + seconds, Outcome()
    while True:
        before = artefacts(folder)
        left = max(1, round(deadline - time.monotonic()))
        command = [sys.executable, "-m", "fuzz.child", name, str(folder), str(left)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False)
        found.runs += stat(done.stderr, "number_of_executed_units")
        found.peak_mib = max(found.peak_mib, stat(done.stderr, "peak_rss_mb"))
        new = artefacts(folder) - before
        harmless = {path for path in new if path.name.startswith(("timeout-", "slow-unit-")) and is_quick(name, path)}
        for path in harmless:
            path.unlink()
        found.crashes = tuple(sorted(new - harmless))
        found.words = "\n".join((done.stdout + done.stderr).splitlines()[-40:])
        if done.returncode and not new:
            found.crashes = (folder,)  # it did not even start
        if found.crashes or not harmless or time.monotonic() >= deadline:
            return found


def artefacts(folder: Path) -> set[Path]:
    """The inputs that libFuzzer kept beside the corpus."""
    return {path for path in folder.iterdir() if path.is_file()}


def is_quick(name: str, path: Path) -> bool:
    """Whether an input needs less CPU time than is allowed: libFuzzer looks at the clock, and others use the CPU."""
    command = [sys.executable, "-m", "fuzz.child", name, "--once", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode == 0 and float(done.stdout.split()[-1]) < TIMEOUT


def stat(text: str, name: str) -> int:
    """A number of libFuzzer's final statistics; 0 when it did not get to print them."""
    found = re.search(rf"stat::{name}:\s*(\d+)", text)
    return int(found[1]) if found else 0


if __name__ == "__main__":
    sys.exit(main())
