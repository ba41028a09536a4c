"""`casemate serve`: run a broker."""

from __future__ import annotations

from pathlib import Path

import click

from casemate.cli import output


@click.command()
@click.option(
    "--home", "folder", type=click.Path(path_type=Path), help="The broker's folder; default: the local one's."
)
@click.option("--log", type=click.Path(path_type=Path), help="Write the log here; default: stderr.")
@click.option("--check", is_flag=True, help="Print the settings and stop.")
@output.json_option
def serve(folder: Path | None, log: Path | None, check: bool, as_json: bool) -> None:
    """Run the broker in the foreground until SIGTERM; open requests are finished first."""
    from casemate.broker import settings
    from casemate.drivers import paths

    chosen = settings.load((folder or paths.home() / "broker").absolute())
    if check:
        output.emit(settings.as_document(chosen), as_json=as_json)
        return
    import os

    from casemate.api import server
    from casemate.broker.assemble import assemble

    os.umask(0o077)  # the store and the log are nobody else's
    server.log_to(log)
    server.serve(assemble(chosen))
