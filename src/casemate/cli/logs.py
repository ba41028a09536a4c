"""`casemate logs`: a container's output, where the manifest grants it."""

from __future__ import annotations

import click

from casemate.cli.output import json_option


@click.command("logs")
@click.argument("workload")
@click.option("-c", "--container", default="", help="Only this container.")
@click.option("-n", "--tail", type=click.IntRange(0), help="Only the last lines.")
@click.option("-f", "--follow", is_flag=True, help="Go on until the workload ends.")
@click.option("--console", is_flag=True, help="The VM's console instead: kernel and agent, never containers.")
@json_option
def logs(workload: str, container: str, tail: int | None, follow: bool, console: bool, as_json: bool) -> None:
    """Show the output of WORKLOAD's containers, which the guest hands out only if the manifest grants it."""
    from casemate.cli import logview
    from casemate.host import workloads

    chosen = workloads.resolve(workload)
    if console:
        logview.console(chosen, tail=tail or 40, as_json=as_json)
        return
    logview.show(chosen, container=container, tail=tail, follow=follow, as_json=as_json)
