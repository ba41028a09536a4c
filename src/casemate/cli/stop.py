"""`casemate stop`: end a workload, gracefully and then firmly."""

from __future__ import annotations

import click

from casemate.cli.output import emit, json_option


@click.command("stop")
@click.argument("workloads", nargs=-1, required=True)
@click.option(
    "--grace", default=10.0, show_default=True, type=click.FloatRange(0, 600), help="Seconds to end by itself."
)
@json_option
def stop(workloads: tuple[str, ...], grace: float, as_json: bool) -> None:
    """Stop WORKLOADS: their containers get the manifest's stop signals; what remains after --grace is ended."""
    from casemate.cli import workloadview
    from casemate.host import stop as stopping
    from casemate.host import workloads as store

    states = [stopping.stop(store.resolve(word), grace=grace) for word in workloads]
    emit(
        [workloadview.document(state) for state in states],
        as_json=as_json,
        text=lambda: click.echo("\n".join(f"{state.name}: {state.state}" for state in states)),
    )
