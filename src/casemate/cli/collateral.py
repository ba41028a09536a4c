"""`casemate collateral`: gather what vendors say about platforms, before and apart from any verification."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from casemate.cli import output

if TYPE_CHECKING:
    from casemate.drivers.collateral import Entry
    from casemate.drivers.vendors import Settings

_PATH = click.Path(path_type=Path)
_store_option = click.option("--store", "folder", type=_PATH, help="The store; default: $CASEMATE_HOME/collateral.")
_settings_option = click.option(
    "--settings", type=_PATH, help="Services and mirrors; default: $CASEMATE_HOME/collateral.toml, where it exists."
)


@click.group()
def collateral() -> None:
    """Fetch, show and carry vendors' certificates, revocation lists and TCB documents."""


@collateral.command()
@click.argument("paths", nargs=-1, type=click.Path(exists=True, path_type=Path), metavar="[EVIDENCE]...")
@click.option("--url", "urls", multiple=True, help="Fetch this URL, as a refusal names it.")
@click.option("--renew", is_flag=True, help="Fetch again what the store holds and is due.")
@click.option("--refresh", is_flag=True, help="Ask also for what is not due yet.")
@_store_option
@_settings_option
@output.json_option
def fetch(
    paths: tuple[Path, ...],
    urls: tuple[str, ...],
    renew: bool,
    refresh: bool,
    folder: Path | None,
    settings: Path | None,
    as_json: bool,
) -> None:
    """Ask the vendors' services for what evidence needs to be judged, and keep it in the store.

    What is still good is not asked for again. Waits for a service that asks for patience. Nothing is sent but URLs.
    """
    from casemate.drivers import vendors
    from casemate.drivers.collateral import Store
    from casemate.errors import Unusable
    from casemate.verifier import collateral as role

    if not (paths or urls or renew):
        raise Unusable("nothing to fetch", hint="name evidence files, a --url, or --renew")
    store = Store.make(folder or _home())
    fetcher = vendors.Fetcher(store, _settings(settings), refresh=refresh, note=output.note)
    found = role.endorse(paths, fetcher.fetch) if paths else []
    for url in (*urls, *([e.url for e in list(store.entries())] if renew else ())):
        fetcher.fetch(url)
    facts = {"store": str(store.path), "tees": found, "fetched": fetcher.fetched, "kept": fetcher.kept}
    output.emit(facts, as_json=as_json, text=lambda: _fetched(facts))


@collateral.command()
@click.argument("bundle", type=_PATH)
@_store_option
@output.json_option
def export(bundle: Path, folder: Path | None, as_json: bool) -> None:
    """Write the whole store into one file, for a machine without a network."""
    from casemate.drivers import collateral as driver

    count = driver.write_bundle(bundle, driver.Store(folder or _home()).entries())
    facts = {"bundle": str(bundle), "entries": count}
    output.emit(facts, as_json=as_json, text=lambda: click.echo(f"{bundle}: {count} entries"))


@collateral.command("import")
@click.argument("bundle", type=_PATH)
@_store_option
@output.json_option
def import_(bundle: Path, folder: Path | None, as_json: bool) -> None:
    """Take a bundle's entries into the store, except where the store has a newer one."""
    from casemate.drivers import collateral as driver

    entries = driver.read_bundle(bundle)
    taken, left = driver.add(driver.Store.make(folder or _home()), entries)
    facts = {"bundle": str(bundle), "taken": taken, "left": left}
    output.emit(facts, as_json=as_json, text=lambda: click.echo(f"{taken} taken, {left} were here already"))


@collateral.command()
@click.argument("source", type=_PATH, required=False)
@_settings_option
@output.json_option
def show(source: Path | None, settings: Path | None, as_json: bool) -> None:
    """Show what a store or a bundle holds, about what, and until when; warn of what ends soon."""
    from datetime import UTC, datetime

    from casemate.drivers.collateral import Store
    from casemate.verifier import collateral as role

    entries = sorted(Store(source or _home()).entries(), key=lambda e: e.url)
    days, now = _settings(settings).warn_days, datetime.now(UTC)
    ending = role.ending(entries, now, days)
    facts = {"entries": [_facts(e) for e in entries], "ending": [e.url for e in ending]}
    rows = [(e.kind, e.about, e.expires and f"{e.expires:%Y-%m-%d %H:%M}", e.url) for e in entries]
    output.emit(facts, as_json=as_json, text=lambda: output.table(("KIND", "ABOUT", "GOOD UNTIL (UTC)", "URL"), rows))
    for entry in ending:
        word = "has ended" if entry.expires and entry.expires <= now else f"ends within {days} days"
        output.note(f"warning: {entry.kind} {entry.about} {word}: casemate collateral fetch --renew")


def _home() -> Path:
    from casemate.drivers import paths

    return paths.home() / "collateral"


def _settings(given: Path | None) -> Settings:
    from casemate.drivers import paths, vendors

    default = paths.home() / vendors.FILE
    return vendors.load(given or (default if default.exists() else None))


def _facts(entry: Entry) -> dict[str, Any]:
    return {
        "url": entry.url,
        "kind": entry.kind,
        "about": entry.about,
        "digest": entry.digest,
        "size": len(entry.body),
        "fetched": entry.fetched.isoformat(),
        "expires": entry.expires and entry.expires.isoformat(),
    }


def _fetched(facts: dict[str, Any]) -> None:
    for word in ("fetched", "kept"):
        for url in facts[word]:
            click.echo(f"{word:<8} {output.clean(url)}")
    click.echo(f"store    {facts['store']}")
