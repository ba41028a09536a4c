"""`casemate inspect`: everything known of one workload."""

from __future__ import annotations

import click

from casemate.cli.output import emit, json_option


@click.command("inspect")
@click.argument("workload")
@json_option
def inspect(workload: str, as_json: bool) -> None:
    """Show WORKLOAD (id, name or beginning of an id): state, phases, ports, expected measurement, findings."""
    from casemate.cli import workloadview
    from casemate.host import workloads

    state = workloads.settle(workloads.resolve(workload))
    emit(workloadview.document(state), as_json=as_json, text=lambda: workloadview.details(state))
