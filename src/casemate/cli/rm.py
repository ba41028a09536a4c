"""`casemate rm`: remove a workload and all that it left on this host."""

from __future__ import annotations

import click

from casemate.cli.output import emit, json_option


@click.command("rm")
@click.argument("workloads", nargs=-1, required=True)
@click.option("--volumes", is_flag=True, help="Also remove its volume disks: their content is lost.")
@click.option("-f", "--force", is_flag=True, help="Stop it first when it lives.")
@json_option
def rm(workloads: tuple[str, ...], volumes: bool, force: bool, as_json: bool) -> None:
    """Remove WORKLOADS that have ended. Volume disks stay, unless --volumes says otherwise."""
    from casemate.host import stop as stopping
    from casemate.host import workloads as store

    removed = [stopping.remove(store.resolve(word), with_volumes=volumes, force=force) for word in workloads]
    names = ", ".join(item["name"] for item in removed)
    emit({"removed": removed}, as_json=as_json, text=lambda: click.echo(f"removed {names}"))
