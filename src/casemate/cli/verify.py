"""`casemate verify`: judge evidence that lies in files, or check a running service as a stranger would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from casemate.cli import output, verify_files, verify_service


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="[PATH]...")
@click.option(
    "--collateral", type=click.Path(path_type=Path), help="A collateral store or bundle with what is not beside it."
)
@output.json_option
@click.pass_context
def verify(
    ctx: click.Context, /, paths: tuple[Path, ...], collateral: Path | None, as_json: bool, **options: Any
) -> None:
    """Verify evidence in files, offline, or a running service.

    PATH is a file or a folder with evidence and its endorsements, under any names: each file is recognised by its
    content. With --service, a running service is asked for evidence over a new nonce and its TLS key instead.

    Exit 0: accepted. Exit 1: refused, with each failed rule. Exit 2: unusable input, naming what is missing.
    """
    mine, others = (verify_service, verify_files) if options["service"] else (verify_files, verify_service)
    given = {p.name for p in verify.params if ctx.get_parameter_source(p.name or "") is not _DEFAULT}
    stray = [p.opts[0] for p in others.options() if p.name in given]
    if stray or (paths and options["service"]):
        form = "--service" if options["service"] else "files"
        raise click.UsageError(f"{', '.join(stray) or 'PATH'} does not go with {form}")
    if not (paths or options["service"] or options["show_policy"]):
        raise click.UsageError("name files or folders with evidence, or a running service with --service")
    names = [p.name for p in mine.options() if p.name]
    chosen = {name: options[name] for name in names}
    if mine is verify_files:
        chosen["paths"] = paths
    ctx.exit(mine.run(as_json=as_json, collateral=collateral, **chosen))


_DEFAULT = click.core.ParameterSource.DEFAULT
verify.params[1:1] = [*verify_files.options(), *verify_service.options()]
