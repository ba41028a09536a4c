"""`casemate admin`: who may administer the broker, and tokens for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from casemate.cli import output

_ROLES = click.Choice(["owner", "operator", "auditor"])


@click.group()
def admin() -> None:
    """Record, list and remove a broker's admins; mint tokens for other tools."""


@admin.command()
@click.argument("name", default="")
@click.option("--role", type=_ROLES, required=True, help="owner: policies, keys, tenants, admins too; auditor: reads.")
@click.option("--tenant", help="The tenant that the admin acts for; default: your own, or the whole broker.")
@click.option("--key", type=click.Path(path_type=Path), help="A public (or private) key in PEM.")
@click.option("--certificate", type=click.Path(path_type=Path), help="A client certificate in PEM, for mTLS.")
@click.option("--renewable", is_flag=True, help="Any certificate of that subject from that CA counts.")
@click.option("--issuer", default="", help="An OIDC issuer of the broker's settings.")
@click.option("--subject", default="", help="The issuer's name for the admin (`sub`).")
@click.option(
    "--proof",
    default="",
    help="What the key's holder made with `casemate admin proof`; with a private --key none is needed.",
)
@output.json_option
def add(name: str, role: str, tenant: str | None, proof: str, as_json: bool, **by: Any) -> None:
    """Record NAME by a key or a certificate, or (without NAME) a subject of an issuer.

    An owner of a tenant needs the proof of who holds the key.
    """
    from urllib.parse import quote

    from casemate.cli import adminview
    from casemate.drivers import brokerclient, paths

    asked = {"role": role, "name": name, **adminview.known_by(**by)}
    where = f"/admins?tenant={quote(tenant, safe='')}" if tenant else "/admins"
    local = brokerclient.Admin.local(paths.home())
    if not proof and by["key"] and (whose := tenant or local.call("GET", "/whoami")["tenant"]):
        proof = adminview.proof(by["key"], whose) or ""
    made = local.call("POST", where, {**asked, "proof": proof})
    output.emit(made, as_json=as_json, text=lambda: click.echo(made["who"]))


@admin.command()
@click.option("--tenant", required=True, help="The tenant whose owner is to record you.")
@click.option("--key", type=click.Path(path_type=Path), required=True, help="Your private key in PEM.")
@click.option("--days", type=click.IntRange(1, 7), default=2, show_default=True, help="How long it serves.")
@output.json_option
def proof(tenant: str, key: Path, days: int, as_json: bool) -> None:
    """Print the proof that you hold a key and agree to be an admin of a tenant, for `casemate admin add --proof`."""
    from casemate.cli import adminview
    from casemate.errors import Unusable

    made = adminview.proof(key, tenant, days * 86400)
    if made is None:
        raise Unusable(f"{key} holds no private key", hint="only who holds it can make a proof")
    output.emit({"proof": made}, as_json=as_json, text=lambda: click.echo(made))


@admin.command("list")
@output.json_option
def list_(as_json: bool) -> None:
    """List the recorded admins that you may see. The key of `init` is always one more."""
    from casemate.drivers import brokerclient, paths

    found = brokerclient.Admin.local(paths.home()).call("GET", "/admins")["admins"]
    rows = [(a["who"], a["role"], a["tenant"] or "*", a["known_by"], a["created"]) for a in found]
    columns = ("WHO", "ROLE", "TENANT", "KNOWN BY", "SINCE")
    output.emit({"admins": found}, as_json=as_json, text=lambda: output.table(columns, rows))


@admin.command()
@click.argument("who")
@output.json_option
def remove(who: str, as_json: bool) -> None:
    """Remove the recorded admin WHO; what they asked for and nobody approved is rejected."""
    from urllib.parse import quote

    from casemate.drivers import brokerclient, paths

    done = brokerclient.Admin.local(paths.home()).call("DELETE", f"/admins?who={quote(who, safe='')}")
    output.emit(done, as_json=as_json, text=lambda: click.echo(f"{who} removed"))


@admin.command()
@output.json_option
def whoami(as_json: bool) -> None:
    """Show who the broker takes you for."""
    from casemate.drivers import brokerclient, paths

    found = brokerclient.Admin.local(paths.home()).call("GET", "/whoami")
    output.emit({**found, "tenant": found["tenant"] or "*"}, as_json=as_json)


@admin.command()
@click.option("--seconds", type=click.IntRange(10, 300), default=120, show_default=True, help="How long it lives.")
@click.option("--minutes", type=click.IntRange(1, 60), help="One that only signs in at the console, for so long.")
@output.json_option
def token(seconds: int, minutes: int | None, as_json: bool) -> None:
    """Print a short-lived token of your key, for `curl -H "Authorization: Bearer $(casemate admin token)"`."""
    from casemate.drivers import brokerclient, paths

    local = brokerclient.Admin.local(paths.home())
    seconds = minutes * 60 if minutes else seconds
    made = local.token(seconds, "casemate-console") if minutes else local.token(seconds)
    output.emit({"token": made, "seconds": seconds}, as_json=as_json, text=lambda: click.echo(made))
