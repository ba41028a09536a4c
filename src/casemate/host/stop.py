"""Ending workloads from a command: ask the supervisor, wait, and be firm with one that does not keep its word."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from casemate.drivers import paths, processes
from casemate.errors import Unavailable
from casemate.host import requests, volumes, workloads
from casemate.host.state import DONE, State
from casemate.host.stopping import GRACE_SECONDS
from casemate.host.workloads import Workload

_FIRM_SECONDS = 25.0  # the supervisor's own ladder takes at most sixteen seconds after the grace
_FAREWELL_SECONDS = 25.0


def stop(workload: Workload, *, grace: float = GRACE_SECONDS) -> State:
    """Stop a workload and return its last state. One that has ended already stays as it is."""
    asked = False
    deadline = time.monotonic() + grace + _FIRM_SECONDS
    while (state := workloads.settle(workload)).state not in DONE:
        if not asked:
            with contextlib.suppress(Unavailable):  # the supervisor may be about to open its door, or about to go
                requests.ask(workload.folder, {"request": "stop", "grace": grace}, timeout=5.0)
                asked = True
        if time.monotonic() > deadline:
            return _firm(workload, state)
        time.sleep(0.05)
    _until_unminded(workload)
    return state


def remove(workload: Workload, *, with_volumes: bool = False, force: bool = False) -> dict[str, Any]:
    """Remove an ended workload (a live one only with `force`); what was removed."""
    if force:
        stop(workload)
    state = workloads.settle(workload)
    if state.state in DONE:
        _until_unminded(workload)
    workloads.remove(workload)
    gone = volumes.remove(state.volumes, paths.home() / "volumes") if with_volumes else []
    return {"id": state.id, "name": state.name, "volumes": gone}


def _until_unminded(workload: Workload) -> None:
    """After the guest's last word its VM powers off and its supervisor goes; until then the folder is in use."""
    deadline = time.monotonic() + _FAREWELL_SECONDS
    while workload.minded():
        if time.monotonic() > deadline:
            raise Unavailable(f"workload {workload.id} is still ending", hint="try again")
        time.sleep(0.01)


def _firm(workload: Workload, state: State) -> State:
    """End a supervisor that did not end its workload; the lock falls free and the rest is cleared up."""
    if state.supervisor is None:
        raise Unavailable(f"workload {state.name} is still being prepared by another command", hint="try again")
    processes.end(state.supervisor, grace=0.0)
    after = workloads.settle(workload)
    if after.state not in DONE:
        raise Unavailable(f"workload {state.name} does not end", hint=f"process {state.supervisor.pid} holds it")
    return after
