"""`casemate manifest`: check, identify, show and write manifests."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from casemate.cli import image_arguments, output

if TYPE_CHECKING:
    from casemate.schema.manifest import Manifest

_FILE = click.argument("file", metavar="FILE", type=click.Path(exists=True, dir_okay=False, allow_dash=True))


@click.group()
def manifest() -> None:
    """Check, identify, show and write manifests."""


@manifest.command()
@_FILE
@output.json_option
def check(file: str, as_json: bool) -> None:
    """Say everything that is wrong with a manifest (YAML, or JSON if FILE ends in .json; - reads standard input)."""
    from casemate.errors import Malformed
    from casemate.host import author

    read = _read(file)
    if problems := author.advice(read):
        listed = "".join(f"\n  {problem}" for problem in problems)
        raise Malformed(f"manifest: {len(problems)} problem(s){listed}", problems=problems)
    facts = {
        "ok": True,
        "name": read.name,
        "digest": read.digest,
        "app": read.app,
        "containers": [container.name for container in read.containers],
        "resources": sorted(read.resources()),
    }
    output.emit(facts, as_json=as_json, text=lambda: click.echo(f"{read.name}: good, {read.digest}"))


@manifest.command()
@_FILE
@output.json_option
def digest(file: str, as_json: bool) -> None:
    """Print a manifest's identity, and the digest of the initdata that carries it."""
    from casemate.boot import initdata

    read = _read(file)
    bound = initdata.digest(initdata.document(read)).hex()
    facts = {"digest": read.digest, "initdata": f"sha256:{bound}"}
    output.emit(facts, as_json=as_json, text=lambda: click.echo(read.digest))


@manifest.command()
@_FILE
@click.option("--initdata", "as_initdata", is_flag=True, help="Show the initdata document that the guest gets.")
def show(file: str, as_initdata: bool) -> None:
    """Print a manifest in canonical form: the very bytes that its digest is over."""
    from casemate.boot import initdata

    read = _read(file)
    sys.stdout.buffer.write(initdata.document(read) if as_initdata else read.canonical())
    sys.stdout.buffer.flush()


@manifest.command("from")
@click.argument("source", metavar="IMAGE|COMPOSE.YAML")
@click.option("--app", required=True, metavar="ID", help="The app that the workload belongs to.")
@click.option("--signer", required=True, type=click.File(), help="PEM public key of who signs the images.")
@click.option("--broker", "brokers", multiple=True, metavar="URL=PIN", help="Default: the local trust domain's.")
@click.option("--name", default="", help="The workload's name; default: from the source.")
@click.option("--plain-http", is_flag=True, help="Ask the registry without TLS.")
@click.option(
    "-o", "--output", "target", type=click.File("w", lazy=True), default="-", help="Default: standard output."
)
def from_(
    source: str, app: str, signer: TextIO, brokers: tuple[str, ...], name: str, plain_http: bool, target: TextIO
) -> None:
    """Write a manifest for an image or for a compose file, tags resolved to digests.

    Each compose key that has no counterpart is an error that names its line.
    """
    from casemate.drivers import paths
    from casemate.host import author

    trust = author.local_trust(paths.home() / "context.json", app, _signer(signer), brokers)
    resolve = author.resolver(trust, plain_http)
    if source.endswith((".yaml", ".yml")):
        made, notes = author.from_compose(image_arguments.whole(Path(source), 1 << 20), name, trust, resolve)
    else:
        made, notes = author.from_image(source, name, trust, resolve)
    target.write(author.to_yaml(made, notes))


@manifest.command()
def schema() -> None:
    """Print the JSON Schema of manifests."""
    from casemate.schema import json_schema

    click.echo(json_schema.text(), nl=False)


def _signer(file: TextIO) -> str:
    """The signer's public key; a PEM is never longer."""
    from casemate.errors import Unusable

    text = file.read(_MAX_SIGNER + 1)
    if len(text) > _MAX_SIGNER:
        raise Unusable("--signer: the file is too long for a public key")
    return text


_MAX_SIGNER = 64 << 10


def _read(file: str) -> Manifest:
    """The manifest in a file, or on standard input for `-`."""
    from casemate.host import author
    from casemate.schema.manifest import MAX_BYTES

    if file == "-":
        return author.read(sys.stdin.buffer.read(MAX_BYTES + 1))
    with Path(file).open("rb") as source:
        return author.read(source.read(MAX_BYTES + 1), json=file.endswith(".json"))
