"""Where the time goes from `casemate run` to the service's first answer: one table, phases in order.

Clocks: `firmware` is QEMU's start to the kernel's; from there on the guest's own clock since kernel start. Each figure
is the median of the runs, with the least and the most; the share is of the median total. Under TCG a figure says more
about its share than about hardware.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from examples.demo.steps import Stage

RUNS = int(os.environ.get("CASEMATE_BENCH_RUNS", "3"))


def main() -> int:
    """Set up the demo's service, start it RUNS times and print the phases."""
    with tempfile.TemporaryDirectory(prefix="casemate-bench-") as folder:
        os.environ["CASEMATE_HOME"] = folder
        from examples.demo import steps
        from examples.demo.story import Story, casemate

        work = Path(folder) / "work"
        work.mkdir()
        stage = steps.Stage(Story(Path(folder)), work)
        rows: dict[str, list[float]] = {}
        try:
            for step in (steps.guest_image, steps.trust_domain, steps.image, steps.found_and_release):
                step(stage)
            for _ in range(RUNS):
                one(stage, rows)
        finally:
            casemate("rm", stage.repository, "--force", "--volumes", may_fail=True)
            casemate("down", may_fail=True)
    table(rows)
    return 0


def one(stage: Stage, rows: dict[str, list[float]]) -> None:
    """One start, from the command to the first answer."""
    from examples.demo import steps
    from examples.demo.story import casemate

    begun = time.monotonic()
    steps.start(stage)
    steps.wait_for(lambda: steps.get(stage, "/"), "the page")
    total = time.monotonic() - begun
    seen = casemate("inspect", stage.repository).document
    phases = sorted(seen["phases"], key=lambda p: p["t"])
    rows.setdefault("host (command to QEMU)", []).append(max(0.0, seen["started"] - seen["created"]))
    rows.setdefault("firmware", []).append(phases[0]["at"] - phases[0]["t"])
    before = 0.0
    for phase in phases:
        rows.setdefault(phase["name"], []).append(phase["t"] - before)
        before = phase["t"]
    last = phases[-1]
    rows.setdefault("first answer", []).append(max(0.0, total - last["at"]))
    rows.setdefault("all", []).append(total)
    casemate("stop", stage.repository)
    casemate("rm", stage.repository)


def table(rows: dict[str, list[float]]) -> None:
    """Median, least and most of each phase, and its share."""
    whole = statistics.median(rows["all"])
    print(f"\n{'phase':<26}{'median s':>10}{'least':>9}{'most':>9}{'share':>8}")
    for name, values in rows.items():
        middle = statistics.median(values)
        print(f"{name:<26}{middle:>10.2f}{min(values):>9.2f}{max(values):>9.2f}{middle / whole:>8.0%}")


if __name__ == "__main__":
    sys.exit(main())
