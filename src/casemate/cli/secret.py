"""`casemate secret`: an app's secrets, read from a file or from standard input, never from the command line."""

from __future__ import annotations

from typing import BinaryIO

import click

from casemate.cli import output, secret_keys
from casemate.cli.durations import duration

_MOST = 2 << 20  # as the broker's `resources.MAX_VALUE`
_APP = click.option("--app", "app_id", required=True, help="The app that owns the secret.")
_FILE = click.option(
    "--file", "source", type=click.File("rb"), default="-", help="Where the value is; default: standard input."
)
_WINDOW = click.option(
    "--window", type=duration, help="How long the version before still opens; default: the broker's (20m); 0: not."
)
_RESOURCE = click.argument("resource", metavar="kbs:///REPO/TYPE/TAG")


@click.group()
def secret() -> None:
    """Store, rotate, list and delete an app's secrets; leases; the broker's master key."""


for _command in secret_keys.COMMANDS:
    secret.add_command(_command)


@secret.command("set")
@_RESOURCE
@_APP
@_FILE
@_WINDOW
@output.json_option
def set_(resource: str, app_id: str, source: BinaryIO, window: int | None, as_json: bool) -> None:
    """Store a new version of a secret. The value is taken as it is, with a last newline if it has one."""
    _put(resource, app_id, _read(source), window, as_json=as_json)


@secret.command()
@_RESOURCE
@_APP
@_FILE
@click.option("--random", "size", type=click.IntRange(16, 4096), help="Make so many random bytes instead of reading.")
@_WINDOW
@output.json_option
def rotate(resource: str, app_id: str, source: BinaryIO, size: int | None, window: int | None, as_json: bool) -> None:
    """Replace a secret that there is. Running guests get the new version within seconds; the old one opens a while."""
    import os

    from casemate.drivers import paths
    from casemate.drivers.secretsclient import Secrets

    Secrets.local(paths.home()).versions(resource)  # a mistyped name must not make a new secret
    _put(resource, app_id, os.urandom(size) if size else _read(source), window, as_json=as_json)


@secret.command("list")
@click.option("--app", "app_id", required=True, help="The app that owns the secrets.")
@output.json_option
def list_(app_id: str, as_json: bool) -> None:
    """List an app's secrets and their newest versions; never their content."""
    from casemate.drivers import brokerclient, paths

    known = brokerclient.Admin.local(paths.home()).resources(app_id)
    rows = [(entry["resource"], entry["version"], entry.get("purged") or "-") for entry in known]
    output.emit(
        {"app_id": app_id, "resources": known},
        as_json=as_json,
        text=lambda: output.table(("RESOURCE", "VERSION", "TO BE PURGED"), rows),
    )


@secret.command()
@_RESOURCE
@output.json_option
def versions(resource: str, as_json: bool) -> None:
    """List a secret's versions and until when each opens."""
    from casemate.drivers import paths
    from casemate.drivers.secretsclient import Secrets

    known = Secrets.local(paths.home()).versions(resource)
    rows = [
        (v["version"], v["state"], v["created"], v["opens_until"] or "-", v["volume"] or "-") for v in known["versions"]
    ]

    def text() -> None:
        if known["purged"]:
            output.note(f"closed, and purged at {known['purged']}; casemate secret undelete takes that back")
        output.table(("VERSION", "STATE", "CREATED", "OPENS UNTIL", "HELD BY VOLUME"), rows)

    output.emit(known, as_json=as_json, text=text)


@secret.command()
@_RESOURCE
@output.json_option
def rm(resource: str, as_json: bool) -> None:
    """Delete every version of a secret now, for good. Its path stays with the app."""
    from casemate.drivers import brokerclient, paths

    brokerclient.Admin.local(paths.home()).delete_resource(resource)
    output.emit({"resource": resource, "deleted": True}, as_json=as_json)


@secret.command()
@_RESOURCE
@click.option("--in", "later", type=duration, default="7d", show_default=True, help="When it is purged for good.")
@output.json_option
def delete(resource: str, later: int, as_json: bool) -> None:
    """Close a secret now and purge it later; until then `undelete` takes it back."""
    from casemate.drivers import paths
    from casemate.drivers.secretsclient import Secrets

    at = Secrets.local(paths.home()).schedule(resource, later)
    output.emit({"resource": resource, "purged": at}, as_json=as_json)


@secret.command()
@_RESOURCE
@output.json_option
def undelete(resource: str, as_json: bool) -> None:
    """Take a deletion back that has not happened yet."""
    from casemate.drivers import paths
    from casemate.drivers.secretsclient import Secrets

    Secrets.local(paths.home()).undelete(resource)
    output.emit({"resource": resource, "deleted": False}, as_json=as_json)


def _read(source: BinaryIO) -> bytes:
    from casemate.errors import Unusable

    if source.isatty():
        output.note("enter the value, then Ctrl-D")
    value = source.read(_MOST + 1)
    if not value or len(value) > _MOST:
        raise Unusable("the value is empty" if not value else f"the value has more than {_MOST} bytes")
    return value


def _put(resource: str, app_id: str, value: bytes, window: int | None, *, as_json: bool) -> None:
    from casemate.drivers import paths
    from casemate.drivers.secretsclient import Secrets

    version = Secrets.local(paths.home()).put(app_id, resource, value, window=window)
    facts = {"resource": resource, "app_id": app_id, "version": version}
    output.emit(facts, as_json=as_json, text=lambda: click.echo(f"{resource} version {version}"))
