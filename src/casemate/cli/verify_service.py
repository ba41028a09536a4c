"""`casemate verify --service`: check a running service as a stranger would."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from casemate.cli import output

if TYPE_CHECKING:
    from casemate.verifier.service import Verdict


def options() -> list[click.Parameter]:
    """The options of this form of the command."""
    return [
        click.Option(["--service"], metavar="HOST:PORT", help="Check the running service at this TLS endpoint."),
        click.Option(["--app", "app_id"], metavar="ID", help="The app that should be running there."),
        click.Option(
            ["--trust"], type=click.Path(path_type=Path), help="Trust file; default: the local trust domain's."
        ),
        click.Option(
            ["--port"], type=click.IntRange(1, 65535), help="The service's port inside the guest, if it has several."
        ),
        click.Option(["--evidence-url"], help="Ask here for the evidence, where the service cannot pass it on."),
    ]


def run(
    *,
    service: str,
    app_id: str | None,
    trust: Path | None,
    port: int | None,
    evidence_url: str | None,
    collateral: Path | None,
    as_json: bool,
) -> int:
    """Ask, judge and print; the exit code."""
    from casemate.drivers import paths
    from casemate.drivers.collateral import Store
    from casemate.errors import Unavailable, Unusable
    from casemate.verifier import service as check
    from casemate.verifier import trust as trusted

    if app_id is None:
        raise click.UsageError("--service wants --app, the app that should be running there")
    believed = trusted.read(trust or paths.home() / "trust.json")
    try:
        answer = check.ask(service, port=port, url=evidence_url)
    except Unavailable as error:  # nothing was judged, so this is no refusal
        raise Unusable(str(error), hint=error.hint) from error
    verdict = check.judge(answer, believed, app_id, fetch=Store(collateral).fetch if collateral else None)
    output.emit(check.as_json(verdict), as_json=as_json, text=lambda: _page(verdict))
    return 0 if verdict.decision.allowed else 1


def _page(verdict: Verdict) -> None:
    """The verdict as a page that a person can read."""
    claims, manifest, statement = verdict.claims, verdict.manifest, verdict.statement
    click.echo("ACCEPTED" if verdict.decision.allowed else "REFUSED")
    if statement:
        click.echo(
            f"who      tenant {output.clean(statement.founding.tenant)}, app {output.clean(statement.founding.name)}"
        )
        click.echo(f"         {statement.app_id}")
    if manifest:
        click.echo(f"what     manifest {manifest.digest}")
        for container in manifest.containers:
            click.echo(f"         {container.name}: {output.clean(container.image)}")
    if claims:
        click.echo(f"where    {claims.tee}, platform class {claims.platform_class}")
        for register in sorted(claims.measurement):
            click.echo(f"         {register:<6} {claims.measurement[register]}")
        click.echo(f"by       {output.clean(claims.vouched_by)}")
    click.echo(f"TLS key  {verdict.tls_pin}")
    output.findings(verdict.decision.findings)
    if claims and not claims.memory_encrypted:
        click.echo("note     development platform: this host could read the workload and forge its evidence")
