"""`casemate approval`: changes that wait for a second owner."""

from __future__ import annotations

from typing import Any

import click

from casemate.cli import output


@click.group()
def approval() -> None:
    """List, show, approve and reject changes that wait for a second owner."""


@approval.command("list")
@click.option("--all", "everything", is_flag=True, help="Also those that were decided or have expired.")
@output.json_option
def list_(everything: bool, as_json: bool) -> None:
    """List the changes that wait."""
    from casemate.drivers import brokerclient, paths

    found = brokerclient.Admin.local(paths.home()).call("GET", "/approvals")["approvals"]
    shown = [a for a in found if everything or a["state"] == "pending"]
    rows = [(a["approval"], a["state"], a["tenant"] or "*", a["act"], a["who"], a["expires"]) for a in shown]
    columns = ("APPROVAL", "STATE", "TENANT", "ACT", "ASKED BY", "EXPIRES")
    output.emit({"approvals": shown}, as_json=as_json, text=lambda: output.table(columns, rows))


@approval.command()
@click.argument("approval_id", metavar="ID")
@output.json_option
def show(approval_id: str, as_json: bool) -> None:
    """Show the change ID with all that it asks for, unless that may be a secret."""
    output.emit(_get(approval_id), as_json=as_json)


@approval.command()
@click.argument("approval_id", metavar="ID")
@click.option("--digest", help="The change's digest, as you saw it; default: it is shown, and you are asked.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@output.json_option
def approve(approval_id: str, digest: str | None, yes: bool, as_json: bool) -> None:
    """Approve the change ID: it takes effect at once, as it was asked for."""
    from casemate.drivers import brokerclient, paths

    if digest is None:
        found = _get(approval_id)
        digest = str(found["digest"])
        if not yes and not as_json:
            output.emit(found, as_json=False)
            click.confirm("Approve this change?", abort=True)
    admin = brokerclient.Admin.local(paths.home())
    done = admin.call("POST", f"/approvals/{_id(approval_id)}/approve", {"digest": digest})
    output.emit(done, as_json=as_json, text=lambda: click.echo(_outcome(done)))


@approval.command()
@click.argument("approval_id", metavar="ID")
@output.json_option
def reject(approval_id: str, as_json: bool) -> None:
    """Reject the change ID: it never takes effect. Who asked for it may take it back like this."""
    from casemate.drivers import brokerclient, paths

    done = brokerclient.Admin.local(paths.home()).call("POST", f"/approvals/{_id(approval_id)}/reject")
    output.emit(done, as_json=as_json, text=lambda: click.echo(f"{approval_id} rejected"))


def _get(approval_id: str) -> dict[str, Any]:
    from casemate.drivers import brokerclient, paths

    return brokerclient.Admin.local(paths.home()).call("GET", f"/approvals/{_id(approval_id)}")


def _id(text: str) -> str:
    from urllib.parse import quote

    return quote(text, safe="")


def _outcome(done: dict[str, Any]) -> str:
    outcome = done["outcome"] or {}
    if outcome.get("status") == 200:
        return f"{done['approval']} approved and carried out"
    return f"{done['approval']} approved, but it failed ({outcome.get('status')}): {outcome.get('detail')}"
