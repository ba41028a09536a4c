"""Process 1 of the guest: the agent."""

import sys

sys.path[:0] = ["/usr/lib/casemate", "/usr/lib/python3/dist-packages"]

from casemate.guest.main import main  # noqa: E402 - found by the path that was just set

main()
