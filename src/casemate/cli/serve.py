"""`casemate serve`: run a broker."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from casemate.cli import output

if TYPE_CHECKING:
    from casemate.broker.settings import Settings


@click.command()
@click.option(
    "--home", "folder", type=click.Path(path_type=Path), help="The broker's folder; default: the local one's."
)
@click.option("--log", type=click.Path(path_type=Path), help="Write the log here; default: stderr.")
@click.option("--check", is_flag=True, help="Check settings and keys, print every setting as TOML, and stop.")
@click.option("--strict-trustee", "strict", is_flag=True, help="Answer with the status codes of Trustee's key broker.")
@click.option(
    "--accept-rollback", "accepted", type=click.IntRange(0), metavar="SIZE",
    help="Serve a store that is older than what was seen of it; SIZE is that of its log.",
)  # fmt: skip
@click.option("--worker", is_flag=True, hidden=True, help="One of several that share a port.")
@output.json_option
def serve(
    folder: Path | None, log: Path | None, check: bool, strict: bool, accepted: int | None, worker: bool, as_json: bool
) -> None:
    """Run the broker in the foreground until SIGTERM; open requests are finished first."""
    from casemate.broker import settings
    from casemate.drivers import paths

    chosen = settings.load((folder or paths.home() / "broker").absolute(), strict=strict)
    if check:
        from casemate.broker import checking

        checking.check(chosen)
        document = settings.as_document(chosen)
        output.emit(document, as_json=as_json, text=lambda: click.echo(settings.as_toml(document), nl=False))
        return
    _run(chosen, log, worker=worker, accepted=accepted)


def _run(chosen: Settings, log: Path | None, *, worker: bool, accepted: int | None) -> None:
    import os

    from casemate.api import logs

    os.umask(0o077)  # the store and the log are nobody else's
    logs.log_to(log)
    from casemate.broker.assemble import assemble

    if accepted is not None:
        assemble(chosen, accept_rollback=accepted).close()
    if chosen.workers > 1 and not worker:
        from casemate.api import workers

        workers.run(chosen, log)
        return
    from casemate.api import server

    server.serve(assemble(chosen), worker=worker)
