"""`casemate secret`: an app's secrets, read from a file or from standard input, never from the command line."""

from __future__ import annotations

from typing import BinaryIO

import click

from casemate.cli import output

_MOST = 2 << 20  # as the broker's `resources.MAX_VALUE`


@click.group()
def secret() -> None:
    """Store, list and delete an app's secrets."""


@secret.command("set")
@click.argument("resource", metavar="kbs:///REPO/TYPE/TAG")
@click.option("--app", "app_id", required=True, help="The app that owns the secret.")
@click.option(
    "--file", "source", type=click.File("rb"), default="-", help="Where the value is; default: standard input."
)
@output.json_option
def set_(resource: str, app_id: str, source: BinaryIO, as_json: bool) -> None:
    """Store a new version of a secret. The value is taken as it is, with a last newline if it has one."""
    from casemate.drivers import brokerclient, paths
    from casemate.errors import Unusable

    if source.isatty():
        output.note("enter the value, then Ctrl-D")
    value = source.read(_MOST + 1)
    if not value or len(value) > _MOST:
        raise Unusable("the value is empty" if not value else f"the value has more than {_MOST} bytes")
    version = brokerclient.Admin.local(paths.home()).put_resource(app_id, resource, value)
    facts = {"resource": resource, "app_id": app_id, "version": version}
    output.emit(facts, as_json=as_json, text=lambda: click.echo(f"{resource} version {version}"))


@secret.command("list")
@click.option("--app", "app_id", required=True, help="The app that owns the secrets.")
@output.json_option
def list_(app_id: str, as_json: bool) -> None:
    """List an app's secrets and their newest versions; never their content."""
    from casemate.drivers import brokerclient, paths

    known = brokerclient.Admin.local(paths.home()).resources(app_id)
    rows = [(entry["resource"], entry["version"]) for entry in known]
    output.emit(
        {"app_id": app_id, "resources": known},
        as_json=as_json,
        text=lambda: output.table(("RESOURCE", "VERSION"), rows),
    )


@secret.command()
@click.argument("resource", metavar="kbs:///REPO/TYPE/TAG")
@output.json_option
def rm(resource: str, as_json: bool) -> None:
    """Delete every version of a secret. Its path stays with the app."""
    from casemate.drivers import brokerclient, paths

    brokerclient.Admin.local(paths.home()).delete_resource(resource)
    output.emit({"resource": resource, "deleted": True}, as_json=as_json)
