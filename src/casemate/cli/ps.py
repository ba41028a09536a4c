"""`casemate ps`: the workloads of this host."""

from __future__ import annotations

import click

from casemate.cli.output import emit, json_option, table


@click.command("ps")
@click.option("--live", is_flag=True, help="Only workloads that have not ended.")
@json_option
def ps(live: bool, as_json: bool) -> None:
    """List the workloads, oldest first; those whose VM died show so."""
    from casemate.cli import workloadview
    from casemate.host import workloads
    from casemate.host.state import LIVE

    states = [state for _, state in workloads.everything() if not live or state.state in LIVE]
    rows = [workloadview.row(state) for state in states]
    emit(
        [workloadview.document(state) for state in states],
        as_json=as_json,
        text=lambda: table(workloadview.COLUMNS, rows),
    )
