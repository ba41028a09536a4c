"""How a workload is shown: as JSON, as a row, in detail, and as the outcome of a start."""

from __future__ import annotations

import time
from typing import Any

import click
import msgspec

from casemate.cli.output import clean, findings
from casemate.drivers import processes
from casemate.errors import Finding
from casemate.host.state import LIVE, State

COLUMNS = ("ID", "NAME", "STATE", "PLATFORM", "PORTS", "AGE", "CONTAINERS")


def document(state: State) -> dict[str, Any]:
    """The record for `--json`, with the start's length and memory now."""
    made: dict[str, Any] = msgspec.to_builtins(state)
    resident, peak = processes.memory_mib(state.qemu)
    made["qemu_peak_mib"] = max(peak, state.qemu_peak_mib)
    made["qemu_resident_mib"] = resident
    # The guest's clock starts with its kernel: what passed before on ours is QEMU, firmware and measuring.
    made["firmware_seconds"] = round(state.phases[0].at - state.phases[0].t, 3) if state.phases else None
    return made


def row(state: State) -> tuple[str, ...]:
    """One line of `casemate ps`."""
    names = ", ".join(f"{name} {known.event}" for name, known in state.containers.items())
    return (state.id, state.name, state.state, state.tee, ", ".join(_ports(state)), _age(state), names)


def details(state: State) -> None:
    """Print everything that a person asks for first."""
    facts = {
        "id": state.id, "name": state.name, "state": state.state, "message": state.message, "app": state.app,
        "manifest": state.manifest_digest, "platform": f"{state.tee}, accelerator {state.accelerator}",
        "size": f"{state.vcpus} CPU, {state.memory_mib} MiB", "age": _age(state),
        "ports": ", ".join(_ports(state)), "volumes": ", ".join(f"{v.name}={v.path}" for v in state.volumes),
        "agent": state.agent,
    }  # fmt: skip
    for key, value in facts.items():
        if value:
            click.echo(f"{key + ':':<10} {clean(value)}")
    for phase in state.phases:
        click.echo(f"phase      {phase.name:<8} {phase.at:7.2f} s {short(phase.detail)}")
    for name, known in state.containers.items():
        code = "" if known.code is None else f", code {known.code}"
        click.echo(f"container  {name}: {known.event}{code}, {known.restarts} restarts")
    for register, value in (state.measurement or {}).items():
        click.echo(f"expected   {register}: {value}")
    _reasons(state, err=False)


def outcome(state: State) -> None:
    """Print how a start ended: where it answers, or why it does not."""
    if state.state in {"refused", "failed"}:
        click.echo(f"{state.name}: {state.state}" + (f": {clean(state.message)}" if state.message else ""), err=True)
        _reasons(state, err=True)
        return
    click.echo(f"{state.name} ({state.id}) is {state.state}" + "".join(f"\n  {port}" for port in _ports(state)))


def short(detail: dict[str, Any]) -> str:
    """A phase's details in one line."""
    return clean(", ".join(f"{key} {value}" for key, value in detail.items()))[:120]


def _reasons(state: State, *, err: bool) -> None:
    findings(
        [Finding(f["rule"], f["expected"], f["found"], f["hint"], ok=f["result"] == "pass") for f in state.findings],
        err=err,
    )
    if state.console:
        click.echo("last lines of the console:", err=err)
        for line in state.console:
            click.echo(f"  | {clean(line)}", err=err)


def _ports(state: State) -> list[str]:
    return [f"{p.address}:{p.host}->{p.container}" + ("/udp" if p.protocol == "udp" else "") for p in state.ports]


def _age(state: State) -> str:
    end = time.time() if state.state in LIVE else (state.finished or time.time())
    seconds = max(0, int(end - state.created))
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
