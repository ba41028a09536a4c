"""`casemate receipt`: receipts of the broker's decisions, verified offline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from casemate.cli import output

if TYPE_CHECKING:
    from casemate.ledger.receipt import Verified

trust_option = click.option(
    "--trust", type=click.Path(path_type=Path), help="Trust file with the log's keys; default: the local domain's."
)


@click.group()
def receipt() -> None:
    """Fetch receipts of the broker's decisions, and verify them offline."""


@receipt.command()
@click.argument("file", type=click.File("rb"))
@trust_option
@output.json_option
def verify(file: BinaryIO, trust: Path | None, as_json: bool) -> None:
    """Verify the receipt in FILE (- for standard input) against the log keys in the trust file; nothing is fetched."""
    from casemate.drivers import paths
    from casemate.ledger import history
    from casemate.ledger import receipt as papers
    from casemate.verifier import trust as trusted

    log = trusted.read(trust or paths.home() / "trust.json").demand_log()
    one = papers.parse(file.read(papers.MAX_RECEIPT + 1))
    found = papers.verify(one, log)
    facts = {
        "verdict": "accepted",
        "id": one.id,
        "log": log.origin,
        "number": found.index,
        "kind": found.entry.kind,
        "time": history.text(found.entry.time),
        "allowed": found.entry.allowed,
        "fields": dict(found.fields),
        "closed": _closed(found),
        "checks": [finding.as_json() for finding in found.findings],
    }
    output.emit(facts, as_json=as_json, text=lambda: _page(found))


@receipt.command()
@click.argument("number", metavar="ID")
@click.option("--out", type=click.Path(path_type=Path), help="Write it here; default: standard output.")
@trust_option
@output.json_option
def get(number: str, out: Path | None, trust: Path | None, as_json: bool) -> None:
    """Fetch the receipt with this id, which the header Casemate-Receipt of a grant names."""
    from casemate.drivers import logclient, paths
    from casemate.ledger import receipt as papers
    from casemate.verifier import trust as trusted

    if not papers.is_id(number):
        raise click.UsageError("ID: 32 hex digits are wanted")
    believed = trusted.read(trust or paths.home() / "trust.json")
    data = logclient.receipt(believed.broker_url, believed.broker_pin, number)
    document = papers.parse(data).as_document()
    if out is None:
        output.emit(document, as_json=True)
        return
    out.write_bytes(data)
    output.emit({"id": number, "file": str(out)}, as_json=as_json)


def _page(found: Verified) -> None:
    """The receipt as a page that a person can read."""
    from casemate.ledger import history

    outcome = {True: "allowed", False: "refused", None: "done"}[found.entry.allowed]
    click.echo(f"ACCEPTED  entry {found.index} of the log, {history.text(found.entry.time)}")
    click.echo(f"{found.entry.kind}: {outcome}")
    for name, value in sorted(found.fields.items()):
        if name not in ("id", "passed", "failed"):
            click.echo(f"  {name + ':':<12} {output.clean(value)}")
    if _closed(found):
        click.echo(f"  not opened:  {', '.join(_closed(found))}")
    output.findings(found.findings)


def _closed(found: Verified) -> list[str]:
    """The fields that the receipt does not open."""
    return sorted(found.entry.commitments.keys() - found.fields.keys())
