"""Run every benchmark of this folder, one after the other; or those that are named."""

from __future__ import annotations

import importlib
import pkgutil
import sys

import bench


def main() -> int:
    """Each module's `main`; a failing one does not keep the others from running."""
    known = sorted(m.name for m in pkgutil.iter_modules(bench.__path__) if not m.name.startswith("_"))
    asked = sys.argv[1:]
    if unknown := [name for name in asked if name not in known]:
        print(f"no benchmark {unknown[0]!r}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    worst = 0
    for module in asked or known:
        print(f"\n== {module}", flush=True)
        worst = max(worst, importlib.import_module(f"bench.{module}").main())
    return worst


if __name__ == "__main__":
    sys.exit(main())
