"""`casemate key`: the keys that sign a broker's tokens and seal its cookies."""

from __future__ import annotations

import click

from casemate.cli import output


@click.group()
def key() -> None:
    """List and rotate the keys that sign a broker's tokens and seal its cookies."""


@key.command("list")
@output.json_option
def list_(as_json: bool) -> None:
    """List the keys that count: the one in use, the next and the previous ones."""
    from casemate.drivers import brokerclient, paths

    _print(brokerclient.Admin.local(paths.home()).call("GET", "/keys")["keys"], as_json)


@key.command()
@click.option("--lead", type=click.IntRange(30, 604800), default=300, show_default=True, help="Seconds until use.")
@click.option("--revoke", is_flag=True, help="Use the new keys at once; tokens of the old ones are worth nothing.")
@output.json_option
def rotate(lead: int, revoke: bool, as_json: bool) -> None:
    """Make new keys: published at once, used after the lead; the old ones are believed for two hours more."""
    from casemate.drivers import brokerclient, paths

    admin = brokerclient.Admin.local(paths.home())
    _print(admin.call("POST", "/keys/rotate", {"lead": lead, "revoke": revoke})["keys"], as_json)


def _print(keys: list[dict[str, str]], as_json: bool) -> None:
    rows = [(one["kind"], one["state"], one["key"], one["begins"]) for one in keys]
    output.emit({"keys": keys}, as_json=as_json, text=lambda: output.table(("KIND", "STATE", "KEY", "BEGINS"), rows))
