"""`casemate log`: a broker's transparency log, as anybody may look at it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from casemate.cli import output
from casemate.cli.receipt import trust_option

if TYPE_CHECKING:
    from casemate.ledger.history import History
    from casemate.verifier.log import Fetch, Proved


@click.group()
def log() -> None:
    """Look at a broker's transparency log; all that is shown was verified."""


@log.command()
@click.option("-n", "--entries", "count", type=click.IntRange(1, 10000), default=10, show_default=True)
@trust_option
@output.json_option
def tail(count: int, trust: Path | None, as_json: bool) -> None:
    """Show the newest entries: number, time, kind and outcome. The rest of an entry opens with its receipt."""
    from casemate.verifier import log as logs

    with _reading(trust) as (fetch, known):
        now, found = logs.tail(fetch, known, count)
    rows = [_facts(one) for one in found]
    output.emit(
        {"origin": known.origin, "size": now.checkpoint.size, "entries": rows},
        as_json=as_json,
        text=lambda: output.table(
            ("NUMBER", "TIME", "KIND", "OUTCOME"),
            [(row["number"], row["time"], row["kind"], _outcome(row["allowed"])) for row in rows],
        ),
    )


@log.command()
@click.argument("number", type=click.IntRange(0))
@trust_option
@output.json_option
def prove(number: int, trust: Path | None, as_json: bool) -> None:
    """Prove that entry NUMBER is in the log, below its newest checkpoint."""
    from casemate.verifier import log as logs
    from casemate.wire.encoding import b64

    with _reading(trust) as (fetch, known):
        now, found = logs.prove(fetch, known, number)
    facts = {
        "number": found.number,
        "size": now.checkpoint.size,
        "entry": found.entry.decode(),
        "proof": [b64(step) for step in found.proof],
        "checkpoint": now.note,
    }
    output.emit(facts, as_json=as_json, text=lambda: _proof(facts))


@log.command()
@click.option("--entries", "every", is_flag=True, help="Read every entry too, not only the tiles that prove it.")
@click.option(
    "--remember", type=click.Path(path_type=Path), help="Where the checkpoint is kept; default: in $CASEMATE_HOME/log."
)
@trust_option
@output.json_option
def check(every: bool, remember: Path | None, trust: Path | None, as_json: bool) -> None:
    """Check that the log only grew since the last check, and remember its checkpoint for the next one."""
    from casemate.drivers import keyfiles, paths
    from casemate.verifier import log as logs

    with _reading(trust) as (fetch, known):
        place = remember or paths.home() / "log" / (known.origin.replace("/", "_") + ".note")
        before = place.read_text("utf-8") if place.exists() else None
        found = logs.check(fetch, known, before, every=every)
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    keyfiles.write(place, found.now.note.encode())
    facts = {
        "origin": known.origin,
        "before": found.before.size if found.before else None,
        "size": found.now.checkpoint.size,
        "checkpoint": found.now.note,
        "remembered": str(place),
        "checks": [finding.as_json() for finding in found.findings],
    }
    output.emit(facts, as_json=as_json, text=lambda: output.findings(found.findings))


@log.command()
@output.json_option
def rotate(as_json: bool) -> None:
    """Give the log of the local domain's broker a new key; trust files are to be written anew (casemate up).

    Old receipts stay good: the trust file keeps the old key with its time.
    """
    from casemate.drivers import brokerclient, paths

    vkey = brokerclient.Admin.local(paths.home()).rotate_log_key()
    output.emit({"vkey": vkey}, as_json=as_json, text=lambda: click.echo(vkey))


@contextmanager
def _reading(trust: Path | None) -> Iterator[tuple[Fetch, History]]:
    """The broker of the trust file, and whose log it must be."""
    from casemate.drivers import logclient, paths
    from casemate.verifier import trust as trusted

    believed = trusted.read(trust or paths.home() / "trust.json")
    known = believed.demand_log()
    with logclient.reading(believed.broker_url, believed.broker_pin) as fetch:
        yield fetch, known


def _facts(one: Proved) -> dict[str, Any]:
    """What everybody may see of an entry."""
    from casemate.ledger import entry, history

    found = entry.parse(one.entry)
    facts = {"number": one.number, "time": history.text(found.time), "kind": found.kind, "allowed": found.allowed}
    return {**facts, "fields": sorted(found.commitments)}


def _outcome(allowed: bool | None) -> str:
    return {True: "allowed", False: "refused", None: "done"}[allowed]


def _proof(facts: dict[str, Any]) -> None:
    click.echo(f"entry {facts['number']} is one of {facts['size']}, proved by {len(facts['proof'])} hashes")
    click.echo(output.clean(facts["entry"]))
    click.echo(output.clean(facts["checkpoint"]), nl=False)
