"""`casemate verify`: check a running service as a stranger would."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from casemate.cli import output

if TYPE_CHECKING:
    from casemate.verifier.service import Verdict


@click.command()
@click.option("--service", required=True, metavar="HOST:PORT", help="The running service's TLS endpoint.")
@click.option("--app", "app_id", required=True, metavar="ID", help="The app that should be running there.")
@click.option("--trust", type=click.Path(path_type=Path), help="Trust file; default: the local trust domain's.")
@click.option("--port", type=click.IntRange(1, 65535), help="The service's port inside the guest, if it has several.")
@click.option("--evidence-url", help="Ask here for the evidence, where the service cannot pass it on.")
@output.json_option
@click.pass_context
def verify(
    ctx: click.Context,
    service: str,
    app_id: str,
    trust: Path | None,
    port: int | None,
    evidence_url: str | None,
    as_json: bool,
) -> None:
    """Ask a running service for evidence over a new nonce and its TLS key, and say who runs what, where.

    Exit 0: every rule holds. Exit 1: refused, with each failed rule. Exit 2: the service gives no usable answer.
    """
    from casemate.drivers import paths
    from casemate.errors import Unavailable, Unusable
    from casemate.verifier import service as check
    from casemate.verifier import trust as trusted

    believed = trusted.read(trust or paths.home() / "trust.json")
    try:
        answer = check.ask(service, port=port, url=evidence_url)
    except Unavailable as error:  # nothing was judged, so this is no refusal
        raise Unusable(str(error), hint=error.hint) from error
    verdict = check.judge(answer, believed, app_id)
    output.emit(check.as_json(verdict), as_json=as_json, text=lambda: _page(verdict))
    ctx.exit(0 if verdict.decision.allowed else 1)


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
