"""`casemate image sign`, `push`, `inspect` and `pull`: images and registries."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from casemate.cli import image_arguments as shared
from casemate.cli import output
from casemate.errors import Refused, Unusable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from casemate.image import manifest as oci
    from casemate.image.reference import Reference
    from casemate.schema.manifest import Signer

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("image", metavar="IMAGE")
@click.option("--key", "key_file", type=_FILE, required=True, help="PEM private key, EC P-256.")
@click.option("--identity", metavar="REPOSITORY", help="The name signed for; default: the reference's own.")
@shared.registry_options
@output.json_option
def sign(
    image: str, key_file: Path, identity: str | None, plain_http: bool, credentials: Path | None, as_json: bool
) -> None:
    """Sign IMAGE: a layout (its signature is pushed with it), or a pushed image by digest.

    The identity must be the name by which manifests call the image: registry/repository, without tag.
    """
    from casemate.drivers import push as moves
    from casemate.image import cosign
    from casemate.image import reference as names

    key = shared.read(key_file, 64 << 10)
    if shared.is_layout(image):
        if identity is None:
            raise Unusable("--identity is needed for a layout", hint="--identity registry.example/team/app")
        layout, found, _ = shared.open_layout(image)
        name, digest = names.parse(identity).name, found.digest
        moves.sign_layout(layout, found, cosign.sign(name, digest, key))
    else:
        where = names.parse(image.removeprefix("docker://"), pinned=True)
        name, digest = names.parse(identity or where.name).name, where.digest or ""
        with shared.connect(where.registry, plain_http=plain_http, credentials=credentials) as client:
            client.manifest(where.repository, digest)
            moves.add_signature(client, where.repository, digest, cosign.sign(name, digest, key))
    output.emit({"digest": digest, "identity": name, "tag": cosign.tag(digest)}, as_json=as_json)


@click.command()
@click.argument("source", metavar="LAYOUT")
@click.argument("reference", metavar="REFERENCE")
@shared.registry_options
@output.json_option
def push(source: str, reference: str, plain_http: bool, credentials: Path | None, as_json: bool) -> None:
    """Push the image LAYOUT and its signatures to REFERENCE (registry/repository[:tag])."""
    from casemate.drivers import push as moves
    from casemate.image import reference as names

    layout, image, _ = shared.open_layout(source)
    where = names.parse(reference.removeprefix("docker://"))

    def tell(role: str, blob: oci.Descriptor, sent: bool) -> None:
        output.note(f"{role} {blob.digest[:19]} {shared.size(blob.size)}: {'pushed' if sent else 'there already'}")

    with shared.connect(where.registry, plain_http=plain_http, credentials=credentials) as client:
        pushed = moves.push(layout, image, client, where, tell)
    output.emit({"reference": f"{pushed.name}@{pushed.digest}", "digest": pushed.digest}, as_json=as_json)


@click.command()
@click.argument("image", metavar="IMAGE")
@click.option("--signer", type=_FILE, multiple=True, help="PEM public key: say whether it signed the image.")
@shared.registry_options
@output.json_option
def inspect(image: str, signer: tuple[Path, ...], plain_http: bool, credentials: Path | None, as_json: bool) -> None:
    """Show digest, configuration, layers and keys of IMAGE: a layout, or a reference at a registry."""
    if shared.is_layout(image):
        layout, found, _ = shared.open_layout(image)
        manifest = layout.manifest(found)
        facts = _facts(found.digest, manifest, layout.config(manifest))
    else:
        facts = _remote_facts(image.removeprefix("docker://"), signer, plain_http, credentials)
    output.emit(facts, as_json=as_json)


@click.command()
@click.argument("reference", metavar="REFERENCE")
@click.argument("target", metavar="FOLDER", type=click.Path(path_type=Path))
@click.option("--signer", type=_FILE, multiple=True, required=True, help="PEM public key that may sign the image.")
@click.option("--key", "keys", multiple=True, metavar="URI=FILE", help="A key that opens layers.")
@click.option("--location", metavar="HOST[:PORT]", help="Fetch from here instead of the reference's registry.")
@shared.registry_options
@output.json_option
def pull(reference: str, target: Path, as_json: bool, **given: Any) -> None:
    """Pull REFERENCE (by digest) into FOLDER/rootfs, by the same rules and code as a guest."""
    from casemate.drivers import pull as guest
    from casemate.image import reference as names
    from casemate.schema.manifest import Registry

    image = names.parse(reference.removeprefix("docker://"), pinned=True)
    resources = dict(shared.key_pair(text) for text in given["keys"])
    if given["credentials"]:
        resources[_CREDENTIALS] = shared.read(given["credentials"], 64 << 10)
    table = Registry(
        prefix=image.registry,
        location=given["location"] or image.registry,
        insecure=given["plain_http"],
        credentials=_CREDENTIALS if given["credentials"] else None,
    )
    signers = _signers(given["signer"], image)
    pulled = guest.pull(
        str(image), registry=[table], signers=signers, keys=_holder(resources), target=target, progress=shared.told
    )
    facts = {"rootfs": str(pulled.rootfs), "digest": pulled.digest, "entries": pulled.entries}
    output.emit({**facts, "stored_bytes": pulled.stored_bytes, "seconds": pulled.seconds}, as_json=as_json)


_CREDENTIALS = "kbs:///local/registry/credentials"


def _holder(resources: dict[str, bytes]) -> Any:
    """Keys by URI from what the command line named."""

    def key(uri: str) -> bytes:
        if uri not in resources:
            raise Refused.because("image.key", expected="a key for the layer", found=uri, hint=f"give --key {uri}=FILE")
        return resources[uri]

    return key


def _signers(files: Sequence[Path], image: Reference) -> list[Signer]:
    from casemate.schema.manifest import Signer

    texts = [shared.read(file, 4096).decode("utf-8", "replace") for file in files]
    return [Signer(key=text, images=(image.name,)) for text in texts]


def _remote_facts(text: str, signer: tuple[Path, ...], plain_http: bool, credentials: Path | None) -> dict[str, Any]:
    from casemate.drivers import pull as guest
    from casemate.image import manifest as oci
    from casemate.image import reference as names

    where = names.parse(text)
    with shared.connect(where.registry, plain_http=plain_http, credentials=credentials) as client:
        fetched = client.manifest(where.repository, where.target)
        document = oci.parse(fetched.body)
        if isinstance(document, oci.Index):
            chosen = client.manifest(where.repository, oci.choose(document).digest)
            document = oci.parse_image(chosen.body)
        config = oci.parse_config(client.small(where.repository, document.config, limit=oci.MAX_CONFIG))
        facts = _facts(fetched.digest, document, config)
        if signer:
            pinned = where.at(fetched.digest)
            facts["signature"] = guest.verify(client, pinned, where.repository, _signers(signer, pinned)).as_json()
    return facts


def _facts(digest: str, manifest: oci.Manifest, config: oci.Config) -> dict[str, Any]:
    import msgspec

    return {
        "digest": digest,
        "platform": f"{config.os}/{config.architecture}",
        "config": msgspec.to_builtins(config.process),
        "layers": [_layer(layer) for layer in manifest.layers],
    }


def _layer(layer: oci.Descriptor) -> dict[str, Any]:
    from casemate.image import manifest as oci
    from casemate.image import ocicrypt, packets

    encrypted = oci.layer_kind(layer.media_type).encrypted
    keys = [packets.parse(data).kid for data in ocicrypt.packets(layer)] if encrypted else []
    return {"digest": layer.digest, "size": layer.size, "type": layer.media_type, "encrypted": encrypted, "keys": keys}
