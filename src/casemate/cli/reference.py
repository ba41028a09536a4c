"""`casemate reference`: reference values, signed and read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from casemate.cli import output

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_PEM_LIMIT = 64 << 10


def _pairs(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for item in value:
        name, separator, text = item.partition("=")
        if not (name and separator and text):
            raise click.BadParameter(f"{item!r} is not NAME=VALUE", ctx, param)
        found[name] = text
    return found


_scope_option = click.option("--for", "scope", multiple=True, callback=_pairs, metavar="NAME=VALUE",
                             help="What the values are for: app=ID, tenant=NAME, …; repeatable.")  # fmt: skip


@click.group()
def reference() -> None:
    """Sign reference values, and read them in any format (CoRIM, in-toto, sigstore, UVM endorsement, our own)."""


@reference.command()
@click.argument("measurements", nargs=-1, required=True, type=_FILE, metavar="MEASUREMENT...")
@click.option("--key", "key_file", required=True, type=_FILE, help="The signer's private key (PEM, mode 0600).")
@click.option("--name", required=True, help="What these are values of, for people.")
@click.option("--days", type=click.IntRange(1, 3650), default=90, show_default=True, help="How long they hold.")
@_scope_option
@click.option("--jws", "as_jws", is_flag=True, help="A compact JWS instead of a DSSE envelope.")
@click.option("-o", "--output", "target", type=click.Path(dir_okay=False, path_type=Path), help="Default: print it.")
@output.json_option
def make(
    measurements: tuple[Path, ...], key_file: Path, name: str, days: int, scope: dict[str, str], as_jws: bool,
    target: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Sign what `casemate measure --json` printed as reference values of one TEE.

    Several MEASUREMENT files are alternatives; each must then measure the same single register.
    """
    from datetime import UTC, datetime

    from casemate.drivers import keyfiles
    from casemate.verifier import publishing
    from casemate.verifier.reading import read_file

    wanted = publishing.Wanted(name=name, days=days, scope=scope, as_jws=as_jws)
    measured = [read_file(path, publishing.LIMIT) for path in measurements]
    made = publishing.make(measured, keyfiles.read(key_file), wanted, datetime.now(UTC))
    if target is None:
        click.echo(made)
        return
    keyfiles.write(target, made, mode=0o644, parents=False)
    output.emit({"written": str(target), "bytes": len(made)}, as_json=as_json)


@reference.command()
@click.argument("document", type=_FILE)
@click.option(
    "--key", "keys", type=_FILE, multiple=True, help="Key, certificate, did or identity of a signer; repeatable."
)
@_scope_option
@click.option("--at", "moment", type=click.DateTime(["%Y-%m-%dT%H:%M:%SZ"]), help="Judge at this time (UTC).")
@output.json_option
@click.pass_context
def show(
    ctx: click.Context, document: Path, keys: tuple[Path, ...], scope: dict[str, str], moment: Any, as_json: bool
) -> None:
    """Print what DOCUMENT says, who signed it and each rule's outcome. Exit 1: it is not to be believed."""
    from datetime import UTC, datetime

    from casemate.policy import references
    from casemate.verifier import publishing
    from casemate.verifier.reading import read_file

    trust = references.ReferenceTrust(scope=scope)
    trust = references.load([read_file(path, _PEM_LIMIT) for path in keys], trust)
    now = moment.replace(tzinfo=UTC) if moment else datetime.now(UTC)
    found = publishing.show(read_file(document, references.LIMIT), trust, now)
    output.emit(found, as_json=as_json, text=lambda: _page(found))
    ctx.exit(0 if found["believed"] else 1)


def _page(found: dict[str, Any]) -> None:
    from casemate.verifier import publishing

    click.echo("BELIEVED" if found["believed"] else "REFUSED")
    for item in found["references"]:
        click.echo(output.clean(f"{item['name']} ({item['format']}{', ' + item['tee'] if item['tee'] else ''})"))
        _line("signer", item["signer"] or "unsigned, or nobody who is named")
        _line("holds", f"from {item['issued'] or '(not said)'} until {item['expires'] or '(not said)'}")
        for group in ("scope", "environment", "registers", "artefacts"):
            for name, value in item[group].items():
                _line(group, f"{name} = {value if isinstance(value, str | dict) else ' or '.join(value)}")
    output.findings(publishing.findings(found))


def _line(label: str, text: str) -> None:
    click.echo(output.clean(f"  {label:<12} {text}"))
