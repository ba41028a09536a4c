"""What `casemate run` shows while a workload starts, and how it gives up when it is interrupted."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from casemate.cli import image_arguments, workloadview
from casemate.cli.output import emit
from casemate.cli.output import note as say
from casemate.drivers import paths
from casemate.host import author, domain, guestimage, launch, workloads
from casemate.host import stop as stopping
from casemate.host.guestimage import GuestImage
from casemate.host.launch import Options
from casemate.host.state import DONE, State
from casemate.host.workloads import Workload
from casemate.schema import manifest as manifests
from casemate.schema.manifest import Manifest


def manifest(path: Path) -> Manifest:
    """The manifest in a file: JSON by its name, else YAML."""
    data = image_arguments.whole(path, manifests.MAX_BYTES)
    return author.read(data, json=path.suffix == ".json")


def image(folder: Path | None) -> GuestImage:
    """The guest image in `folder`; else the one whose values the local domain accepts; else the usual one, built.

    An image built after `casemate up` would be refused by the domain's broker, so the domain's own comes first.
    """
    if folder is None and (local := domain.context(paths.home())) is not None:
        known = Path(local["guest_image"])
        folder = known if known.is_dir() else None
    return guestimage.load(folder) if folder is not None else guestimage.ensure(say)


def options(chosen: dict[str, Any]) -> Options:
    """The launch options that the flags say."""
    if not math.isfinite(chosen["timeout"]):
        raise click.UsageError("--timeout: a number of seconds is wanted")
    return Options(
        publish=chosen["publish"],
        memory_mib=chosen["memory_mib"],
        vcpus=chosen["vcpus"],
        volumes={name: Path(path) for name, path in _pairs("--volume", chosen["volumes"])},
        volume_sizes={name: _whole(size) for name, size in _pairs("--volume-size", chosen["sizes"])},
        name=chosen["name"],
        tee=chosen["tee"],
        cpu_type=chosen["cpu_type"],
        firmware=chosen["firmware"],
        extra_command_line=chosen["command_line"],
        initrd=chosen["initrd"],
        start_seconds=chosen["timeout"],
    )


def note(quiet: bool) -> Callable[[str], None]:
    """Where progress goes: stderr, or nowhere."""
    return (lambda _: None) if quiet else say


def follow(workload: Workload, *, seconds: float, quiet: bool, wait: bool) -> State:
    """Wait for the start, printing each phase once with its time; without `wait` return at once."""
    if not wait:
        return workloads.settle(workload)
    shown = 0

    def seen(state: State) -> None:
        nonlocal shown
        for phase in state.phases[shown:]:
            if not quiet:
                say(f"  {phase.name:<8} {phase.at:6.1f} s {workloadview.short(phase.detail)}")
        shown = len(state.phases)

    return launch.wait(workload, seen, seconds=seconds)


@contextlib.contextmanager
def interruptible(workload: Workload) -> Iterator[None]:
    """On Ctrl-C stop the workload cleanly and remove it; a second Ctrl-C leaves that to its supervisor."""
    try:
        yield
    except KeyboardInterrupt:
        if workload.lock is not None:
            launch.discard(workload)
            raise
        say(f"stopping {workload.id}; once more to leave at once")
        stopping.stop(workload)
        stopping.remove(workload)
        raise


def verdict(state: State, *, as_json: bool) -> None:
    """Print how the start ended; the exit code says it too."""
    document = workloadview.document(state)
    ended = state.state in DONE
    if ended:
        document["error"] = state.message or f"workload {state.name} is {state.state}"
    emit(document, as_json=as_json, text=lambda: workloadview.outcome(state))
    if ended:
        sys.exit(1)


def _pairs(option: str, texts: tuple[str, ...]) -> list[tuple[str, str]]:
    for text in texts:
        if not all(text.partition("=")[::2]):
            raise click.UsageError(f"{option} {text[:60]!r} is not NAME=VALUE")
    return [(text.partition("=")[0], text.partition("=")[2]) for text in texts]


def _whole(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise click.UsageError(f"{text[:60]!r} is not a number of MiB")
    return int(text)
