"""The ladder down: ask the guest, then tell QEMU, then kill it. Each rung has its time."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

from casemate.drivers import processes, qemu
from casemate.drivers.qmp import Qmp
from casemate.errors import CasemateError
from casemate.host.state import LIVE

if TYPE_CHECKING:
    from casemate.host.supervisor import Supervisor

GRACE_SECONDS = 10.0
MAX_GRACE = 600.0  # the guest takes no more
_EARLY_SECONDS = 3.0
_QUIT_SECONDS = 2.0


class Ladder:
    """Where a workload stands on its way down: `rung` 0 not going, 1 asked, 2 QEMU told, 3 killed."""

    def __init__(self, owner: Supervisor) -> None:
        self._owner = owner
        self._rung = 0
        self._deadline = 0.0

    def begin(self, grace: float) -> None:
        """Ask the guest to stop its containers within `grace` seconds; without an agent QEMU is told at once."""
        state = self._owner.state
        grace = max(0.0, min(grace, MAX_GRACE))
        if state.state == "stopping":  # asked again, perhaps with less patience
            self._deadline = min(self._deadline, time.monotonic() + grace + self._owner.plan.farewell_seconds)
        if state.state not in LIVE or state.state == "stopping":
            return
        early = state.state != "running"
        state.state, state.message = "stopping", "stopped before it ran" if early else ""
        self._owner.save()
        if not self._owner.tell({"type": "stop", "grace": grace}):
            self.firm()
            return
        # A guest that is still starting may wait for a broker; there is no container yet to be patient with.
        patience = _EARLY_SECONDS if early else grace + self._owner.plan.farewell_seconds
        self._rung, self._deadline = 1, time.monotonic() + patience

    def expect_end(self, seconds: float) -> None:
        """The guest said its last word: give it time to power off."""
        if self._rung == 0:
            self._rung, self._deadline = 1, time.monotonic() + seconds

    def firm(self) -> None:
        """Tell QEMU to quit, now."""
        if self._rung < 2:
            self._rung, self._deadline = 1, 0.0
            self.step()

    def step(self) -> None:
        """Go one rung down when its time has come."""
        if self._rung == 0 or time.monotonic() < self._deadline:
            return
        if self._rung == 1:
            if self._owner.state.state == "stopping" and not self._owner.state.message:
                self._owner.state.message = "the guest did not stop in time, so the VM was ended"
            self._quit()
        elif self._owner.state.qemu is not None:
            processes.send(self._owner.state.qemu, signal.SIGKILL)
        self._rung = min(self._rung + 1, 3)
        self._deadline = time.monotonic() + _QUIT_SECONDS

    def _quit(self) -> None:
        """QMP's quit flushes the disks; a QEMU that is not that far yet takes SIGTERM for the same."""
        try:
            with Qmp.connect(qemu.QMP_SOCKET, timeout=1.0) as qmp:
                qmp.execute("quit")
        except CasemateError:
            if self._owner.state.qemu is not None:
                processes.send(self._owner.state.qemu, signal.SIGTERM)
