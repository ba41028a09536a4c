"""The tests that are too long for `make test`, one after another; goes on where it stopped (`make soak`).

What passed is remembered in build/soak.json under the state of the tree (the commit and whatever differs from it) and
counts for that state only. With arguments only tests whose name contains one of them run; --again forgets.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MEMORY = ROOT / "build" / "soak.json"
PYTEST = [sys.executable, "-m", "pytest", "-q", "-m", "soak"]


def main() -> int:
    """Run each soak test of its own; exit 1 if one failed."""
    key = state()
    wanted = [word for word in sys.argv[1:] if not word.startswith("-")]
    passed = set() if "--again" in sys.argv else remembered(key)
    tests = [test for test in collected() if not wanted or any(word in test for word in wanted)]
    failed = []
    for number, test in enumerate(tests, 1):
        if test in passed:
            print(f"[{number}/{len(tests)}] {test}: passed before", flush=True)
            continue
        begun = time.monotonic()
        done = subprocess.run([*PYTEST, test], cwd=ROOT, capture_output=True, text=True, check=False)
        good = done.returncode == 0
        print(
            f"[{number}/{len(tests)}] {test}: {'passed' if good else 'FAILED'}, {time.monotonic() - begun:.0f} s",
            flush=True,
        )
        if good and state() == key:
            passed.add(test)
            remember(key, passed)
        elif good:
            print("    the tree changed meanwhile: not remembered", flush=True)
        else:
            failed.append(test)
            print(done.stdout[-4000:] + done.stderr[-1000:])
    print(f"soak: {len(tests)} tests, {len(failed)} failed")
    return 1 if failed else 0


def state() -> str:
    """The commit, and a digest of what differs from it: changes, and files that git neither knows nor ignores."""
    changes = hashlib.sha256(git("diff", "HEAD", "--binary", "--no-ext-diff"))
    for name in sorted(git("ls-files", "--others", "--exclude-standard", "-z").split(b"\0")):
        path = ROOT / name.decode("utf-8", "surrogateescape")
        content = path.read_bytes() if name and path.is_file() else b""
        changes.update(b"%d %s %d " % (len(name), name, len(content)) + content)
    return f"{git('rev-parse', 'HEAD').decode().strip()}+{changes.hexdigest()}"


def git(*words: str) -> bytes:
    """What git says; without it nothing can be remembered."""
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(f"soak: git {words[0]} failed, so there is no state to remember: {done.stderr.decode()}")
    return done.stdout


def collected() -> list[str]:
    """Node ids of all soak tests."""
    listed = subprocess.run([*PYTEST, "--collect-only"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        raise SystemExit(f"soak: the tests can't be collected\n{listed.stdout[-2000:]}{listed.stderr[-2000:]}")
    return [line for line in listed.stdout.splitlines() if "::" in line]


def remembered(key: str) -> set[str]:
    """What passed in this state."""
    try:
        memory = json.loads(MEMORY.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return set()
    return set(memory["passed"]) if memory.get("state") == key else set()


def remember(key: str, passed: set[str]) -> None:
    """Write what passed, whole or not at all."""
    MEMORY.parent.mkdir(exist_ok=True)
    new = MEMORY.with_suffix(".new")
    new.write_text(json.dumps({"state": key, "passed": sorted(passed)}, indent=1), encoding="utf-8")
    new.rename(MEMORY)


if __name__ == "__main__":
    sys.exit(main())
