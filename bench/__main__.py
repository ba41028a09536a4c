"""Run every benchmark of this folder, one after the other."""

from __future__ import annotations

import importlib
import pkgutil
import sys

import bench


def main() -> int:
    """Each module's `main`; a failing one does not keep the others from running."""
    worst = 0
    for module in sorted(m.name for m in pkgutil.iter_modules(bench.__path__) if not m.name.startswith("_")):
        print(f"\n== {module}", flush=True)
        worst = max(worst, importlib.import_module(f"bench.{module}").main())
    return worst


if __name__ == "__main__":
    sys.exit(main())
