"""The record of one workload: what was asked, what runs, what happened. Types only."""

from __future__ import annotations

from typing import Any

import msgspec

from casemate.drivers.processes import Process

LIVE = frozenset({"preparing", "starting", "running", "stopping"})
DONE = frozenset({"stopped", "refused", "failed"})


class Port(msgspec.Struct, frozen=True, kw_only=True):
    """A published port."""

    address: str
    host: int
    container: int
    protocol: str = "tcp"


class VolumeDisk(msgspec.Struct, frozen=True, kw_only=True):
    """A volume's disk on this host."""

    name: str
    path: str
    size_mib: int


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """One step of the start. `at`: seconds since QEMU's start, our clock; `t`: since the kernel's, the guest's."""

    name: str
    at: float
    t: float
    detail: dict[str, Any] = {}


class ContainerState(msgspec.Struct, kw_only=True):
    """What the guest last said of a container."""

    event: str
    code: int | None = None
    restarts: int = 0


class State(msgspec.Struct, kw_only=True):
    """Everything that `casemate inspect --json` shows. Times are seconds since 1970; `tee` is the room's wire name."""

    id: str
    name: str
    state: str = "preparing"
    message: str = ""
    findings: list[dict[str, str]] = []
    tee: str = ""
    app: str = ""
    manifest_digest: str = ""
    initdata_digest: str = ""
    image: str = ""
    command_line: str = ""
    measurement: dict[str, str] | None = None
    created: float = 0.0
    started: float | None = None
    finished: float | None = None
    accelerator: str = ""
    vcpus: int = 1
    memory_mib: int = 0
    qemu_peak_mib: int = 0
    ports: list[Port] = []
    volumes: list[VolumeDisk] = []
    logs_granted: bool = False
    agent: str = ""
    phases: list[Phase] = []
    containers: dict[str, ContainerState] = {}
    console: list[str] = []
    supervisor: Process | None = None
    qemu: Process | None = None
    swtpm: Process | None = None


def as_text(value: object, limit: int) -> str:
    """A foreign string for people: printable characters only, at most `limit` of them."""
    text = value if isinstance(value, str) else str(value)
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[:limit])
