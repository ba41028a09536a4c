"""The teller: numbered steps with progress and times, and the record that ends up in .casemate/demo.json."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class Failed(Exception):
    """A step did not come out as it should."""


@dataclass
class Story:
    """Collects steps, verdicts and measurements; prints as it goes."""

    home: Path
    steps: list[dict[str, Any]] = field(default_factory=list)
    refusals: list[dict[str, Any]] = field(default_factory=list)
    measurements: dict[str, str] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """One numbered step: its title at once, its time at the end."""
        number = len(self.steps) + 1
        record: dict[str, Any] = {"number": number, "title": title, "ok": False, "seconds": 0.0}
        self.steps.append(record)
        print(f"\n[{number}] {title}", flush=True)
        begun = time.monotonic()
        try:
            yield
            record["ok"] = True
        finally:
            record["seconds"] = round(time.monotonic() - begun, 2)
            print(f"    {'done' if record['ok'] else 'FAILED'} in {record['seconds']:.1f} s", flush=True)

    def say(self, text: str) -> None:
        """One line under the current step."""
        print(f"    {text}", flush=True)

    def refusal(self, what: str, wanted_rule: str, findings: list[dict[str, Any]]) -> None:
        """Record one refusal and hold it against the rule that must have failed."""
        failed = [f for f in findings if f.get("result") == "fail"]
        as_wanted = any(f["rule"] == wanted_rule or f["rule"].startswith(wanted_rule + ".") for f in failed)
        self.refusals.append({"attempt": what, "wanted_rule": wanted_rule, "ok": as_wanted, "findings": failed})
        mark = "refused, as it must be" if as_wanted else "NOT refused as it must be"
        print(f"  ✗ {what}: {mark}", flush=True)
        for finding in failed:
            print(f"      rule      {finding['rule']}")
            print(f"      expected  {_short(finding['expected'])}")
            print(f"      found     {_short(finding['found'])}")
            if finding.get("hint"):
                print(f"      what now  {finding['hint']}")
        sys.stdout.flush()

    def finish(self) -> int:
        """The table, the platform's honest line, demo.json; returns the exit code."""
        total = time.monotonic() - self.started
        ok = all(s["ok"] for s in self.steps) and bool(self.refusals) and all(r["ok"] for r in self.refusals)
        print("\n    step                                                              seconds  result")
        for step in self.steps:
            result = "ok" if step["ok"] else "FAILED"
            print(f"    {step['number']}. {step['title'][:60]:<62}{step['seconds']:>8.1f}  {result}")
        held = sum(r["ok"] for r in self.refusals)
        print(f"    {'all':<65}{total:>8.1f}  {held} of {len(self.refusals)} refusals as they must be")
        print(
            "\n    This is a DEVELOPMENT platform (swtpm, a software TPM): every mechanism is real, but it does not"
            " protect from this host, which could forge its evidence. Production policy refuses it."
        )
        record = {
            "ok": ok,
            "seconds": round(total, 2),
            "platform": {"class": "development", "tpm": "swtpm", "protects_from_host": False},
            "steps": self.steps,
            "refusals": self.refusals,
            "measurements": self.measurements,
            "figures": self.figures,
        }
        path = self.home / "demo.json"
        path.write_text(json.dumps(record, indent=2) + "\n")
        print(f"    written: {path}")
        return 0 if ok else 1


def _short(text: str, limit: int = 150) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


@dataclass(frozen=True)
class Output:
    """What a command printed: exit code, the JSON document on stdout, and stderr."""

    code: int
    document: Any
    errors: str


def casemate(*words: str | Path, secret: bytes | None = None, may_fail: bool = False) -> Output:
    """Run `casemate … --json` as a user would; secrets go in through standard input."""
    argv = [sys.executable, "-m", "casemate", *map(str, words), "--json"]
    feed: dict[str, Any] = {"input": secret} if secret is not None else {"stdin": subprocess.DEVNULL}
    done = subprocess.run(argv, capture_output=True, check=False, **feed)
    errors = done.stderr.decode(errors="replace").strip()
    try:
        document = json.loads(done.stdout) if done.stdout.strip() else {}
    except ValueError:
        document = {"text": done.stdout.decode(errors="replace")}
    if done.returncode and not may_fail:
        raise Failed(f"casemate {' '.join(map(str, words))} ended with {done.returncode}: {errors or document}")
    return Output(done.returncode, document, errors)
