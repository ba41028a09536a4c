"""`casemate release`: which manifests an app approves."""

from __future__ import annotations

from pathlib import Path

import click

from casemate.cli import image_arguments, output


@click.group()
def release() -> None:
    """Register, list and revoke an app's releases."""


@release.command()
@click.argument("app_id")
@click.argument("manifest", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@output.json_option
def add(app_id: str, manifest: Path, as_json: bool) -> None:
    """Make MANIFEST (YAML or JSON) an active release of the app and print its digest."""
    from casemate.drivers import brokerclient, paths
    from casemate.host import author
    from casemate.schema.manifest import MAX_BYTES

    document = author.read(image_arguments.whole(manifest, MAX_BYTES), json=manifest.suffix == ".json")
    digest = brokerclient.Admin.local(paths.home()).add_release(app_id, document.canonical())
    output.emit({"app_id": app_id, "manifest_digest": digest}, as_json=as_json, text=lambda: click.echo(digest))


@release.command("list")
@click.argument("app_id")
@output.json_option
def list_(app_id: str, as_json: bool) -> None:
    """List an app's releases."""
    import msgspec

    from casemate.drivers import brokerclient, paths

    admin = brokerclient.Admin.local(paths.home())
    known = brokerclient.app_statement(admin.url, admin.pin, app_id).releases
    rows = [(entry.manifest_digest, entry.state, entry.registered) for entry in known]
    output.emit(
        {"app_id": app_id, "releases": msgspec.to_builtins(known)},
        as_json=as_json,
        text=lambda: output.table(("MANIFEST", "STATE", "REGISTERED"), rows),
    )


@release.command()
@click.argument("app_id")
@click.argument("manifest_digest")
@output.json_option
def revoke(app_id: str, manifest_digest: str, as_json: bool) -> None:
    """Revoke a release: it gets nothing from now on, and it can't come back."""
    from casemate.drivers import brokerclient, paths

    brokerclient.Admin.local(paths.home()).revoke_release(app_id, manifest_digest)
    output.emit({"app_id": app_id, "manifest_digest": manifest_digest, "state": "revoked"}, as_json=as_json)
