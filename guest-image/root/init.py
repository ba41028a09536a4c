"""Process 1 of the guest: the agent."""

import sys

sys.path[:0] = ["/usr/lib/casemate", "/usr/lib/python3/dist-packages"]


def _placeholder() -> None:
    import ctypes
    import os

    with open("/proc/uptime") as stream:
        print("casemate: agent ready", stream.read().split()[0], flush=True)
    os.sync()
    ctypes.CDLL(None).reboot(0x4321FEDC)


try:
    from casemate.guest.main import main
except ImportError:
    main = _placeholder
main()
