"""`casemate run`: start a workload from its manifest and wait until it runs, showing each phase with its time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from casemate.cli.output import json_option


@click.command("run")
@click.argument("manifest", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-p", "--publish", multiple=True, metavar="[ADDR:]HOST:CONTAINER", help="Publish a port; HOST 0: any.")
@click.option(
    "--memory", "memory_mib", type=click.IntRange(128, 1 << 20), metavar="MIB", help="Memory (default 512 MiB)."
)
@click.option("--vcpus", type=click.IntRange(1, 64), help="Virtual CPUs (default 1).")
@click.option("--volume", "volumes", multiple=True, metavar="NAME=PATH", help="The disk file of a volume.")
@click.option("--volume-size", "sizes", multiple=True, metavar="NAME=MIB", help="Size of a volume's new disk.")
@click.option("--name", default="", help="Name of the workload (default: the manifest's).")
@click.option("--tee", default="tpm", show_default=True, help="The platform: tpm, snp, tdx.")
@click.option("--cpu-type", default="", metavar="MODEL", help="QEMU's CPU model, where the measurement needs one.")
@click.option("--guest", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Guest image folder.")
@click.option("--firmware", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Another firmware.")
@click.option("--command-line", default="", metavar="EXTRA", help="Development: words after the command line.")
@click.option("--initrd", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Development: an initrd.")
@click.option("--wait/--no-wait", default=True, help="Wait until it runs (default).")
@click.option(
    "--timeout", type=click.FloatRange(1, 86400), default=300.0, show_default=True, metavar="SECONDS",
    help="How long a start may take.",
)  # fmt: skip
@json_option
def run(manifest: Path, guest: Path | None, wait: bool, as_json: bool, **chosen: Any) -> None:
    """Start the workload that MANIFEST (YAML or JSON) describes.

    Exit code 0 when it runs, 1 when it was refused, failed or stopped; the reasons are printed, rule by rule.
    """
    from casemate.cli import runview
    from casemate.host import launch

    document = runview.manifest(manifest)
    workload = launch.prepare(document, runview.image(guest), runview.options(chosen), runview.note(as_json))
    with runview.interruptible(workload):
        launch.start(workload)
        state = runview.follow(workload, seconds=chosen["timeout"] + 30, quiet=as_json, wait=wait)
    runview.verdict(state, as_json=as_json)
