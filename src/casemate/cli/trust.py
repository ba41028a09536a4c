"""`casemate trust`: the file by which others know a broker."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from casemate.cli import output, places

if TYPE_CHECKING:
    from casemate.verifier.trust import Trust


@click.group()
def trust() -> None:
    """Write the trust file of a broker, for who verifies its services, receipts and log."""


@trust.command()
@click.argument("file", type=places.PATH)
@click.option(
    "--home", "folder", type=places.PATH,
    help="The broker's folder, as its operator; default: ask the broker, as an admin of the whole of it.",
)  # fmt: skip
@click.option("--url", default="", help="The broker's address as readers of FILE reach it.")
@click.option("--force", is_flag=True, help="Replace FILE when it is there.")
@output.json_option
def write(file: Path, folder: Path | None, url: str, force: bool, as_json: bool) -> None:
    """Write FILE: the broker's address and pin, the keys of its log, its anchors and reference values.

    Nothing in it is secret. Whoever gets it compares the pin, which `casemate init` printed too.
    """
    import json

    from casemate.drivers import keyfiles

    if url and not url.startswith("https://"):
        raise click.UsageError("--url: https://HOST:PORT is wanted")
    file = file.absolute()
    places.demand_new(file, force=force)
    made = _of_folder(folder.absolute(), url) if folder is not None else _asked(url)
    keyfiles.write(file, json.dumps(made.as_document(), indent=2).encode() + b"\n", mode=0o644, parents=False)
    facts = {
        "file": str(file),
        "url": made.broker_url,
        "pin": made.broker_pin,
        "log": made.log.origin if made.log else None,
        "anchors": len(made.anchors),
        "reference_values": len(made.references),
    }
    output.emit(facts, as_json=as_json)


def _asked(url: str) -> Trust:
    """By what a running broker says over a connection to its pinned key."""
    from casemate.drivers import brokerclient, paths
    from casemate.verifier import trust as trusted

    admin = brokerclient.Admin.local(paths.home())
    said = brokerclient.info(admin.url, admin.pin)
    return trusted.of_info(url.rstrip("/") or admin.url, admin.pin, said, tuple(admin.references()))


def _of_folder(folder: Path, url: str) -> Trust:
    """By the broker's own keys and store, which is read alone."""
    from casemate.broker import checking, prepare, settings
    from casemate.drivers.store import Store, registry
    from casemate.drivers.store import log as entries
    from casemate.errors import Unusable
    from casemate.verifier.trust import Trust

    chosen = settings.load(folder)
    unserved = Unusable(f"{folder}: this broker has no log yet", hint=f"casemate serve --home {folder} begins one")
    if checking.is_unmade(chosen):
        raise unserved
    store = Store(chosen.store_url)
    try:
        with store.read() as tx:
            log = entries.keys(tx)
            anchors, references = registry.anchors(tx), registry.references(tx)
    finally:
        store.close()
    if log is None:
        raise unserved
    return Trust(url.rstrip("/") or chosen.issuer_url, prepare.pin(folder), anchors, references, log)
