"""`casemate secret`, continued: leases of guests, and the master key that everything is sealed under."""

from __future__ import annotations

from typing import Any

import click

from casemate.cli import output


@click.command()
@click.option("--app", "app_id", help="Of this app alone.")
@click.option("--limit", type=click.IntRange(1, 10000), default=100, show_default=True, help="How many at most.")
@click.option("--end", is_flag=True, help="End those that are live: their guests attest anew at once, or stop.")
@click.option("--tee", help="With --end: of this TEE alone, after its TCB level was raised.")
@click.option("--max", "most", help="With --app: how many guests may hold a lease at a time; `any` for no bound.")
@output.json_option
def leases(app_id: str | None, limit: int, end: bool, tee: str | None, most: str | None, as_json: bool) -> None:
    """List who holds what it was given, end leases, or bound how many there may be."""
    from casemate.drivers import paths
    from casemate.drivers.secretsclient import Secrets

    admin = Secrets.local(paths.home())
    if most is not None:
        if app_id is None or not (most == "any" or most.isdigit()):
            raise click.UsageError("--max takes a number or `any`, and needs --app")
        admin.set_holders(app_id, None if most == "any" else int(most))
        output.emit({"app_id": app_id, "max_holders": None if most == "any" else int(most)}, as_json=as_json)
        return
    if end:
        output.emit({"ended": admin.end_leases(app=app_id, tee=tee)}, as_json=as_json)
        return
    found = admin.leases(app_id, limit)
    rows = [(one["lease"][:12], one["app"][:19], one["tee"], one["state"], one["expires"]) for one in found]
    columns = ("LEASE", "APP", "TEE", "STATE", "EXPIRES")
    output.emit({"leases": found}, as_json=as_json, text=lambda: output.table(columns, rows))


@click.command()
@click.option("--step", type=click.IntRange(1, 1000), default=200, show_default=True, help="Values at a time.")
@click.option("--check", is_flag=True, help="Only count what is sealed under which master key.")
@output.json_option
def rewrap(step: int, check: bool, as_json: bool) -> None:
    """Seal everything under the first master key of the settings, while the broker serves; can be stopped any time."""
    from casemate.drivers import paths
    from casemate.drivers.secretsclient import Secrets
    from casemate.errors import Unusable

    admin = Secrets.local(paths.home())
    done: list[dict[str, Any]] = []
    if not check:
        for one in admin.rewrap(step):
            done.append(one)
            output.note(f"{one['rewrapped']} values sealed under {one['master']}")
    state = admin.masters()
    failed = [failure for one in done for failure in one["failed"]]
    rows = [(m["id"], m["kind"], m["values"]) for m in [*state["masters"], *state["unknown"]]]
    facts = {**state, "rewrapped": sum(one["rewrapped"] for one in done), "failed": failed}
    output.emit(facts, as_json=as_json, text=lambda: output.table(("MASTER KEY", "KIND", "VALUES"), rows))
    if failed:
        raise Unusable(f"{len(failed)} values could not be opened", hint=f"the first: {failed[0]['where']}")


COMMANDS = (leases, rewrap)
