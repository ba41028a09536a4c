"""The plan of a launch, written by the command that prepares and read by the supervisor that carries it out."""

from __future__ import annotations

from pathlib import Path

import msgspec

from casemate.errors import Unusable

PLAN = "launch.json"
START_SECONDS = 300.0
FAREWELL_SECONDS = 10.0  # for a guest to close its volumes and power off once its containers have ended


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """QEMU's argv (run in the workload's folder), what the manifest grants the host, and how long a start may take."""

    qemu: list[str]
    vtpm: bool = False
    containers: list[str] = []
    logs: bool = False
    exec: bool = False
    signals: list[str] = []
    start_seconds: float = START_SECONDS
    farewell_seconds: float = FAREWELL_SECONDS


def read(folder: Path) -> Plan:
    """The plan in a workload's folder."""
    try:
        return msgspec.json.decode((folder / PLAN).read_bytes(), type=Plan)
    except (OSError, msgspec.MsgspecError) as error:
        raise Unusable(f"the launch plan of {folder.name} can't be read: {error}") from error
