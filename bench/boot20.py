"""Boots the guest image many times and counts: does this machine's QEMU emulate reliably, and how long does it take?

Run alone: python -m bench.boot20 [times]. Prints one line a boot, then the summary; exit 1 when a boot failed.
"""

from __future__ import annotations

import statistics
import sys

from casemate.drivers import accelerator, qemu
from casemate.testing import boots

DOCUMENT = b'version = "0.1.0"\nalgorithm = "sha256"\n\n[data]\n"casemate.json" = "{}"\n'


def main(times: int = 20) -> int:
    """Boot `times` times; the number of failures decides the exit code."""
    image = boots.probe_image()
    disk = boots.initdata_disk(DOCUMENT)
    good: list[boots.Boot] = []
    for number in range(1, times + 1):
        boot = boots.boot(image, disk)
        if boot.facts:
            good.append(boot)
            print(f"{number:3}  ready in {boot.seconds:5.2f} s, {boot.cpu_seconds:5.2f} CPU s", flush=True)
        else:
            print(f"{number:3}  FAILED: {' | '.join(boot.console[-3:])}", flush=True)
    version = ".".join(map(str, qemu.version(qemu.find())))
    print(f"QEMU {version}, {accelerator.choose()}: {len(good)} of {times} boots came up")
    if good:
        walls, cpus = [b.seconds for b in good], [b.cpu_seconds for b in good]
        print(f"wall s: min {min(walls):.2f}, median {statistics.median(walls):.2f}, max {max(walls):.2f}")
        print(f"CPU s:  min {min(cpus):.2f}, median {statistics.median(cpus):.2f}, max {max(cpus):.2f}")
    return 0 if len(good) == times else 1


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:2])))
