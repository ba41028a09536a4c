"""`casemate backup` and `casemate restore`: a broker's store into a file and back."""

from __future__ import annotations

from pathlib import Path

import click

from casemate.cli import output, places

_HOME = click.option("--home", "folder", type=places.PATH, help="The broker's folder; default: the local one's.")
_PASSPHRASE = click.option(
    "--passphrase-file",
    type=places.PATH,
    help="A private file whose first line is the passphrase; default: the broker's master key seals.",
)


@click.command()
@click.argument("file", type=places.PATH)
@_HOME
@_PASSPHRASE
@click.option("--force", is_flag=True, help="Replace FILE when it is there.")
@click.option("--with-keys", is_flag=True, help="The broker's keys and settings too; needs a passphrase.")
@output.json_option
def backup(
    file: Path, folder: Path | None, passphrase_file: Path | None, with_keys: bool, force: bool, as_json: bool
) -> None:
    """Write all that a broker's store holds to FILE, sealed. The broker may go on running."""
    from casemate.broker import recovery, settings

    chosen = settings.load(_folder(folder))
    places.demand_new(file, force=force)
    facts = recovery.save(chosen, file.absolute(), passphrase=_passphrase(passphrase_file), keys=with_keys)
    output.emit(facts, as_json=as_json)


@click.command()
@click.argument("file", type=places.PATH)
@_HOME
@_PASSPHRASE
@click.option("--store", help="Database URL for a broker that is made from the backup; default: as it was.")
@output.json_option
def restore(file: Path, folder: Path | None, passphrase_file: Path | None, store: str | None, as_json: bool) -> None:
    """Fill the empty store of a broker from FILE; a new folder gets the keys that the backup has."""
    import os

    from casemate.broker import recovery

    os.umask(0o077)
    facts = recovery.restore(_folder(folder), file.absolute(), passphrase=_passphrase(passphrase_file), store=store)
    if facts["behind"]:
        output.note(f"this broker will not start on it: {facts['behind']}")
    output.emit(facts, as_json=as_json)


def _folder(given: Path | None) -> Path:
    from casemate.drivers import paths

    return (given or paths.home() / "broker").absolute()


def _passphrase(path: Path | None) -> bytes | None:
    from casemate.drivers import keyfiles

    return None if path is None else keyfiles.read(path).split(b"\n")[0]
