"""`casemate audit`: records for people who must show who got which key, on what proof."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from casemate.cli import output
from casemate.cli.receipt import trust_option

if TYPE_CHECKING:
    from casemate.verifier.audit import Rows
    from casemate.verifier.trust import Trust

_BEGINNING = "1970-01-01T00:00:00Z"


@click.group()
def audit() -> None:
    """Turn receipts into readable records."""


@audit.command()
@click.argument("files", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--since", metavar="TIME", default=_BEGINNING, help="First instant (ISO 8601); default: the beginning.")
@click.option("--until", metavar="TIME", help="First instant after the period; default: now.")
@click.option("--app", help="Only what concerns this app; asked of the broker.")
@click.option("--tenant", help="Only what concerns this tenant; asked of the broker.")
@trust_option
@output.json_option
def report(
    files: tuple[Path, ...], since: str, until: str | None, trust: Path | None, as_json: bool, **chosen: str | None
) -> None:
    """Write a record of a period as Markdown (or JSON): from receipts in FILES, else from the broker, as its auditor.

    Every receipt is verified first. Without --app and --tenant, entries of the period that were held back are named.
    """
    from datetime import UTC, datetime

    from casemate.drivers import paths
    from casemate.ledger import report as reports
    from casemate.verifier import trust as trusted

    believed = trusted.read(trust or paths.home() / "trust.json")
    end = until or datetime.now(UTC).isoformat(timespec="milliseconds")
    found, missing = _given(believed, files, since, end) if files else _asked(believed, since, end, chosen)
    made = reports.record(found, since=since, until=end, missing=missing)
    page = reports.markdown(made, origin=believed.demand_log().origin)
    output.emit(made, as_json=as_json, text=lambda: click.echo(page, nl=False))


def _given(believed: Trust, files: tuple[Path, ...], since: str, until: str) -> tuple[Rows, None]:
    """The receipts in files, verified; what is missing is not known."""
    from casemate.verifier import audit as auditing

    return auditing.of_period(auditing.verified(auditing.read(files), believed.demand_log()), since, until), None


def _asked(
    believed: Trust, since: str, until: str, chosen: dict[str, str | None]
) -> tuple[Rows, list[list[int]] | None]:
    """The broker's receipts, verified, and what it held back of the period where all of it was asked for."""
    from casemate.drivers import brokerclient, logclient, paths
    from casemate.verifier import audit as auditing

    log = believed.demand_log()
    admin = brokerclient.Admin.local(paths.home())

    def page(after: int) -> list[dict[str, Any]]:
        return admin.receipts(since, until, after=after, **chosen)

    found = auditing.verified(auditing.fetched(page), log)
    if any(chosen.values()):
        return found, None
    with logclient.reading(believed.broker_url, believed.broker_pin) as fetch:
        return found, auditing.missing(found, fetch, log, since, until)
