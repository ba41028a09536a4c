"""`casemate init`: make a broker."""

from __future__ import annotations

from pathlib import Path

import click

from casemate.cli import output, places


@click.command()
@click.argument("folder", type=places.PATH)
@click.option("--admin-key", type=places.PATH, help="Where the admin's private key goes.")
@click.option("--host", default="127.0.0.1", show_default=True, callback=places.host, help="Address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), default=8443, show_default=True)
@click.option("--store", help="Database URL; default: SQLite in the folder.")
@output.json_option
def init(folder: Path, admin_key: Path | None, host: str, port: int, store: str | None, as_json: bool) -> None:
    """Make a broker's keys and settings in FOLDER. Doing it again changes nothing that exists."""
    from casemate.broker import prepare

    if store is not None and not store.strip():
        raise click.UsageError("--store: empty; is a variable unset?")
    folder = folder.absolute()
    key = (admin_key or folder / prepare.ADMIN_KEY).absolute()
    made = prepare.prepare(folder, key, host=host, port=port, **({"store": store} if store else {}))
    facts = {"folder": str(folder), "pin": prepare.pin(folder), "admin_key": str(key), "port": made.port}
    output.emit(facts, as_json=as_json)
