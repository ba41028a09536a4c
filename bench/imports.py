"""How long an import takes in a new process, above an interpreter that does nothing: median of many."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

RUNS = 15
CASES = {
    "import casemate": "import casemate",
    "… and what a verification of SNP needs": "import casemate.tee.snp, casemate.crypto.chain",
    "… and what one of TDX needs": "import casemate.tee.tdx, casemate.tee.dcap.verify",
    "the command line's help": "import casemate.cli",
}


def main() -> int:
    """Print the table; `import casemate` should stay below 120 ms on a quiet machine."""
    times: dict[str, list[float]] = {name: [] for name in ("", *CASES)}
    for _ in range(RUNS):
        for name, code in {"": "pass", **CASES}.items():
            begun = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            times[name].append(time.perf_counter() - begun)
    bare = statistics.median(times.pop(""))
    print(f"an interpreter that does nothing: {1000 * bare:.0f} ms")
    for name, kept in times.items():
        print(f"{name:<40}{1000 * (statistics.median(kept) - bare):>6.0f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
