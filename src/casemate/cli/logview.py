"""How a workload's output is read back: records of the supervisor, raw for a pipe, harmless for a terminal."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import click

from casemate.cli.output import clean, emit
from casemate.drivers import qemu
from casemate.errors import Unusable
from casemate.host import keeping, workloads
from casemate.host.state import DONE
from casemate.host.workloads import Workload
from casemate.wire.encoding import unb64


def show(workload: Workload, *, container: str, tail: int | None, follow: bool, as_json: bool) -> None:
    """Print the records of `container` (all when empty); a workload that grants no logs is explained."""
    state = workloads.settle(workload)
    if not state.logs_granted:
        raise Unusable(
            f"{state.name} hands out no logs: its manifest does not grant them",
            hint="`host: {logs: true}` in the manifest grants them, which makes it another manifest to approve",
        )
    if container and container not in state.containers:
        raise Unusable(f"no container {container[:80]!r}", hint=f"there are: {', '.join(state.containers)}")
    records = [r for r in _records(workload) if not container or r["container"] == container]
    if as_json:
        emit(_tail(records, tail), as_json=True)
        return
    named = len(state.containers) > 1 and not container
    for record in _tail(records, tail):
        _print(record, named=named)
    if follow:
        _follow(workload, len(records), container, named)


def console(workload: Workload, *, tail: int, as_json: bool) -> None:
    """Print the last lines of the VM's console."""
    lines = keeping.last_lines(workload.folder / qemu.CONSOLE_LOG, tail)
    emit(lines, as_json=as_json, text=lambda: click.echo("\n".join(map(clean, lines))))


def _records(workload: Workload) -> list[dict[str, Any]]:
    return list(_read(workload, keeping.LOG + ".old")) + list(_read(workload, keeping.LOG))


def _read(workload: Workload, name: str) -> Iterator[dict[str, Any]]:
    path = workload.folder / name
    if not path.exists():
        return
    for line in path.read_bytes().splitlines():
        try:
            record = json.loads(line)
        except ValueError:  # the line that is being written just now
            continue
        if isinstance(record, dict) and {"container", "stream", "data"} <= record.keys():
            yield record


def _tail(records: list[dict[str, Any]], lines: int | None) -> list[dict[str, Any]]:
    """The last records that hold about `lines` lines; a record is never cut."""
    if lines is None:
        return records
    count = start = 0
    for start in range(len(records), -1, -1):
        if start < len(records):
            count += max(1, unb64(records[start]["data"]).count(b"\n"))
        if count >= lines:
            break
    return records[start:]


def _print(record: dict[str, Any], *, named: bool) -> None:
    data = unb64(record["data"], "log")
    stream = sys.stderr if record["stream"] == "stderr" else sys.stdout
    if named:
        data = b"".join(f"{record['container']} | ".encode() + line for line in data.splitlines(keepends=True))
    if stream.isatty():
        stream.write(clean(data.decode("utf-8", "replace")))
    else:
        stream.buffer.write(data)
    stream.flush()


def _follow(workload: Workload, seen: int, container: str, named: bool) -> None:
    while True:
        ended = workloads.settle(workload).state in DONE
        records = [r for r in _records(workload) if not container or r["container"] == container]
        seen = 0 if len(records) < seen else seen
        for record in records[seen:]:
            _print(record, named=named)
        seen = len(records)
        if ended:
            return
        time.sleep(0.2)
