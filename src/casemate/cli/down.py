"""`casemate down`: stop what `casemate up` started."""

from __future__ import annotations

import click

from casemate.cli import output


@click.command()
@output.json_option
def down(as_json: bool) -> None:
    """Stop the local broker and registry. Keys, secrets and images stay; workloads end ten minutes later."""
    from casemate.broker import local
    from casemate.drivers import paths
    from casemate.host import domain

    home = paths.home()
    stopped = {"broker": local.stop(home), "registry": domain.stop(home)}
    names = [name for name, ended in stopped.items() if ended]
    output.emit(
        {"stopped": names}, as_json=as_json, text=lambda: click.echo(f"stopped: {', '.join(names) or 'nothing ran'}")
    )
