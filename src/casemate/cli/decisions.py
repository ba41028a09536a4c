"""`casemate decisions`: what the broker decided, and why."""

from __future__ import annotations

from typing import Any

import click

from casemate.cli import output


@click.command()
@click.option("--app", "app_id", help="Only decisions on this app.")
@click.option("--limit", type=click.IntRange(1, 10000), default=20, show_default=True)
@output.json_option
def decisions(app_id: str | None, limit: int, as_json: bool) -> None:
    """List the broker's newest decisions, each refusal with every failed rule."""
    from casemate.drivers import brokerclient, paths

    found = brokerclient.Admin.local(paths.home()).decisions(limit, app_id)
    output.emit({"decisions": found}, as_json=as_json, text=lambda: _page(found))


def _page(found: list[dict[str, Any]]) -> None:
    from casemate.errors import Finding

    for entry in found:
        what = entry["resource"] or entry["manifest_digest"] or entry["tee"] or ""
        verdict = "allowed" if entry["allowed"] else "refused"
        click.echo(f"{entry['time']}  {verdict}  {entry['act']:<8} {output.clean(what)}")
        reasons = [f for f in entry["findings"] if f["result"] == "fail"]
        output.findings(Finding(f["rule"], f["expected"], f["found"], f["hint"]) for f in reasons)
