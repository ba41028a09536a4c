"""`casemate app`: found apps, list them, say where they may run."""

from __future__ import annotations

import click

from casemate.cli import output

_CLASSES = click.Choice(["development", "production"])


@click.group()
def app() -> None:
    """Found apps, list them, and say on which platforms they may run."""


@app.command()
@click.option("--tenant", required=True, help="Who owns the app.")
@click.option("--name", required=True, help="The app's name; manifests carry it too.")
@click.option("--platform", "platforms", multiple=True, type=_CLASSES, help="Allowed class; default: production alone.")
@output.json_option
def found(tenant: str, name: str, platforms: tuple[str, ...], as_json: bool) -> None:
    """Found an app and print its id: the hash of its founding record."""
    from casemate.drivers import brokerclient, paths

    made = brokerclient.Admin.local(paths.home()).found(tenant, name, platforms or ("production",))
    output.emit(made, as_json=as_json, text=lambda: click.echo(made["app_id"]))


@app.command("list")
@output.json_option
def list_(as_json: bool) -> None:
    """List the broker's apps."""
    import msgspec

    from casemate.drivers import brokerclient, paths

    known = brokerclient.Admin.local(paths.home()).apps()
    rows = [
        (
            a.app_id,
            a.founding.tenant,
            a.founding.name,
            ",".join(a.platforms),
            sum(r.state == "active" for r in a.releases),
        )
        for a in known
    ]
    columns = ("APP", "TENANT", "NAME", "PLATFORMS", "ACTIVE RELEASES")
    output.emit({"apps": msgspec.to_builtins(known)}, as_json=as_json, text=lambda: output.table(columns, rows))


@app.command()
@click.argument("app_id")
@output.json_option
def show(app_id: str, as_json: bool) -> None:
    """Show an app: its founding, its releases and its resources (names and versions, never content)."""
    import msgspec

    from casemate.drivers import brokerclient, paths

    admin = brokerclient.Admin.local(paths.home())
    known = brokerclient.app_statement(admin.url, admin.pin, app_id)
    facts = {**msgspec.to_builtins(known), "resources": admin.resources(app_id)}
    output.emit(facts, as_json=as_json)


@app.command()
@click.argument("app_id")
@click.argument("platforms", nargs=-1, required=True, type=_CLASSES)
@output.json_option
def allow(app_id: str, platforms: tuple[str, ...], as_json: bool) -> None:
    """Set the platform classes on which an app may run."""
    from casemate.drivers import brokerclient, paths

    known = brokerclient.Admin.local(paths.home()).allow(app_id, platforms)
    output.emit({"app_id": app_id, "platforms": list(known.platforms)}, as_json=as_json)


@app.command()
@click.argument("app_id")
@click.argument("names", metavar="[AUDIENCE]...", nargs=-1)
@click.option("--none", is_flag=True, help="Allow none any more.")
@output.json_option
def audiences(app_id: str, names: tuple[str, ...], none: bool, as_json: bool) -> None:
    """Set for whom the app's guests may get tokens (a vault, a cloud's IAM); without AUDIENCE, show it."""
    from urllib.parse import quote

    from casemate.drivers import brokerclient, paths

    admin, where = brokerclient.Admin.local(paths.home()), f"/apps/{quote(app_id, safe=':')}/audiences"
    found = admin.call("POST", where, {"audiences": list(names)}) if names or none else admin.call("GET", where)
    output.emit(found, as_json=as_json, text=lambda: click.echo("\n".join(found["audiences"]) or "none"))
