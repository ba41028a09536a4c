"""Entry of the guest: process 1 comes here from /sbin/init, and when the workload has ended the machine powers off.

There is no way out of this function but the end of the machine: no shell, no login, no second try.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

from casemate.guest.settings import Settings

_POWER_OFF = 0x4321FEDC  # LINUX_REBOOT_CMD_POWER_OFF
_CONTROLLERS = "+cpu +memory +pids"
_FILES = 65536


def main(settings: Settings | None = None) -> None:
    """Run the workload of this VM, then power off."""
    try:
        prepare()
        from casemate.guest.start import start

        start(settings or Settings())
    except BaseException as error:  # noqa: BLE001 - whatever happened, the machine must end
        print(f"casemate: failed: {type(error).__name__}", flush=True)
    finally:
        power_off()


def prepare() -> None:
    """What process 1 must set up once: private mounts, cgroup controllers, limits; and it does not die of signals."""
    import resource

    os.umask(0o022)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    Path("/run/casemate").mkdir(mode=0o700, parents=True, exist_ok=True)
    Path("/run/casemate").chmod(0o700)
    Path("/sys/fs/cgroup/cgroup.subtree_control").write_text(_CONTROLLERS)
    Path("/proc/self/oom_score_adj").write_text("-1000")
    resource.setrlimit(resource.RLIMIT_NOFILE, (_FILES, _FILES))


def power_off() -> None:
    """Write everything out and end the machine."""
    import ctypes

    os.sync()
    ctypes.CDLL(None).reboot(ctypes.c_uint(_POWER_OFF))
