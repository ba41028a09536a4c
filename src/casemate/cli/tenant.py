"""`casemate tenant`: who shares a broker, and what each of them settled."""

from __future__ import annotations

import click

from casemate.cli import output


@click.group()
def tenant() -> None:
    """Make and list tenants, and set what each of them settled."""


@tenant.command()
@click.argument("name")
@output.json_option
def add(name: str, as_json: bool) -> None:
    """Make the tenant NAME."""
    from casemate.drivers import brokerclient, paths

    made = brokerclient.Admin.local(paths.home()).call("POST", "/tenants", {"name": name})
    output.emit(made, as_json=as_json, text=lambda: click.echo(made["tenant"]))


@tenant.command("list")
@output.json_option
def list_(as_json: bool) -> None:
    """List the tenants that you may see; `*` is the broker itself."""
    from casemate.drivers import brokerclient, paths

    found = brokerclient.Admin.local(paths.home()).call("GET", "/tenants")["tenants"]
    rows = [
        (t["tenant"], ",".join(t["two_person"]) or "-", "yes" if t["unsigned_references"] else "no", t["max_decisions"])
        for t in found
    ]
    columns = ("TENANT", "TWO PERSONS FOR", "UNSIGNED REFERENCES", "DECISIONS SHOWN")
    output.emit({"tenants": found}, as_json=as_json, text=lambda: output.table(columns, rows))


@tenant.command("set")
@click.argument("name")
@click.option("--two-person", "acts", multiple=True, metavar="ACT", help="An act that needs two owners (policy.set).")
@click.option("--one-person", is_flag=True, help="No act needs two owners any more.")
@click.option("--unsigned-references/--signed-references", default=None, help="Whether they need a signature.")
@click.option("--max-decisions", type=click.IntRange(1, 10000), help="How many decisions its admins are shown.")
@output.json_option
def set_(
    name: str,
    acts: tuple[str, ...],
    one_person: bool,
    unsigned_references: bool | None,
    max_decisions: int | None,
    as_json: bool,
) -> None:
    """Change the settings of the tenant NAME (`*`: of the broker itself); what is not named stays."""
    from urllib.parse import quote

    from casemate.drivers import brokerclient, paths

    if acts and one_person:
        raise click.UsageError("--two-person and --one-person exclude each other")
    said = {"unsigned_references": unsigned_references, "max_decisions": max_decisions}
    changes: dict[str, object] = {key: value for key, value in said.items() if value is not None}
    if acts or one_person:
        changes["two_person"] = list(acts)
    done = brokerclient.Admin.local(paths.home()).call("POST", f"/tenants/{quote(name, safe='')}", changes)
    output.emit(done, as_json=as_json)
