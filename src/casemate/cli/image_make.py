"""`casemate image build` and `encrypt`: images in layouts."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from casemate.cli import image_arguments as shared
from casemate.cli import output
from casemate.errors import Unusable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from casemate.image import manifest as oci
    from casemate.image.build import Layer, Owner
    from casemate.image.layout import Layout

_PATH = click.Path(path_type=Path, exists=True)


@click.command()
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--root", type=_PATH, metavar="FOLDER", help="A layer from this folder's content.")
@click.option("--tar", type=_PATH, metavar="FILE", help="A layer from this tar, gzipped or plain.")
@click.option("--layout", "base", metavar="LAYOUT", help="Build upon this image: its layers and settings come first.")
@click.option("--layer", "extra", type=_PATH, multiple=True, metavar="PATH", help="A further folder or tar, on top.")
@click.option("--entrypoint", multiple=True, metavar="WORD", help="The program and its first words, one option each.")
@click.option("--cmd", multiple=True, metavar="WORD", help="Default arguments, one option each.")
@click.option("--env", multiple=True, metavar="K=V", help="An environment variable.")
@click.option("--user", metavar="UID[:GID]", help="Who runs the program.")
@click.option("--workdir", metavar="PATH", help="Where it starts.")
@click.option("--expose", multiple=True, metavar="PORT[/tcp]", help="A port it listens on.")
@click.option("--label", multiple=True, metavar="K=V", help="A label.")
@click.option("--stop-signal", metavar="SIGNAL", help="The signal that asks it to end.")
@click.option("--name", default="latest", show_default=True, help="The image's name in the layout.")
@click.option("--owner", metavar="UID:GID", help="Own every file thus; default: as on disk (root), 0:0 (others).")
@click.option("--compression", type=click.Choice(["gzip", "none"]), default="gzip", show_default=True)
@click.option("--source-date-epoch", "epoch", envvar="SOURCE_DATE_EPOCH", type=click.IntRange(0), default=0)
@output.json_option
def build(out: Path, as_json: bool, **given: Any) -> None:
    """Make an image in the new folder OUT (OCI layout). The same input gives the same digest."""
    from casemate.image import build as make

    with shared.new_layout(out) as layout:
        layers, process = _base(layout, given["base"])
        for path in [path for path in (given["root"], given["tar"], *given["extra"]) if path]:
            output.note(f"layer {len(layers) + 1}: {path}")
            tar = shared.counted(_tar(path, given), f"layer {len(layers) + 1}")
            layers.append(make.add_layer(layout, tar, compression=given["compression"]))
        if not layers:
            raise Unusable("an image needs a layer", hint="give --root, --tar, --layout or --layer")
        image = make.add_image(layout, layers, _process(process, given), name=given["name"], epoch=given["epoch"])
    facts = {"layout": str(out), "name": given["name"], "digest": image.digest, "layers": len(layers)}
    output.emit(facts, as_json=as_json)


@click.command()
@click.argument("source", metavar="LAYOUT")
@click.argument("out", metavar="[OUT]", required=False, type=click.Path(path_type=Path))
@click.option("--key", "uri", required=True, metavar="URI", help="The key's kbs:///repository/type/tag.")
@click.option("--key-file", type=click.Path(path_type=Path), required=True, help="The key: 32 raw bytes.")
@click.option("--also", multiple=True, metavar="URI=FILE", help="Another key that opens the layers too.")
@click.option("--packet", type=click.IntRange(1, 2), default=2, show_default=True, help="Version of the key packets.")
@output.json_option
def encrypt(
    source: str, out: Path | None, uri: str, key_file: Path, also: tuple[str, ...], packet: int, as_json: bool
) -> None:
    """Encrypt the layers of the image LAYOUT, in place or into the new layout OUT.

    Each layer gets a key of its own, wrapped under the key at URI (ocicrypt, provider attestation-agent). In place, the
    plain layers and the signatures of the plain image are removed: the encrypted image is another image.
    """
    from casemate.image import build as make

    keys = [(uri, shared.key_file(key_file)), *(shared.key_pair(text) for text in also)]
    layout, image, name = shared.open_layout(source)
    total = len(layout.manifest(image).layers)

    def tell(number: int, layer: oci.Descriptor) -> None:
        output.note(f"encrypting layer {number + 1} of {total} ({shared.size(layer.size)})")

    with nullcontext(layout) if out is None else shared.new_layout(out) as made:
        if out is not None:
            image = _copied(layout, image, made, name)
        sealed = make.encrypt(made, image, keys, name=name, version=packet, progress=tell)
    output.emit(
        {"layout": str(made.path), "name": name, "digest": sealed.digest, "keys": [key for key, _ in keys]},
        as_json=as_json,
    )


def _base(layout: Layout, base: str | None) -> tuple[list[Layer], oci.Process]:
    """Layers and settings to begin with: those of `base`, copied into `layout`, or none."""
    from casemate.image import build as make
    from casemate.image import manifest as oci

    if base is None:
        return [], oci.Process()
    source, image, _ = shared.open_layout(base)
    manifest = source.manifest(image)
    return make.copy_layers(source, manifest, layout), source.config(manifest).process


def _copied(source: Layout, image: oci.Descriptor, made: Layout, name: str) -> oci.Descriptor:
    """The image, copied into the new layout `made`."""
    from casemate.image import manifest as oci

    manifest = source.manifest(image)
    for descriptor in (manifest.config, *manifest.layers):
        made.add(source.chunks(descriptor))
    return made.put(oci.encode(manifest), name)


def _tar(path: Path, given: dict[str, Any]) -> Iterator[bytes]:
    from casemate.image import build as make

    if not path.is_dir():
        return make.file_tar(path)
    return make.folder_tar(path, epoch=given["epoch"], owner=_owner(given["owner"]))


def _owner(text: str | None) -> Owner:
    import os

    if text is None:
        return None if os.geteuid() == 0 else (0, 0)
    uid, colon, gid = text.partition(":")
    if not (colon and uid.isdigit() and gid.isdigit()):
        raise Unusable(f"--owner {text!r}: UID:GID in numbers is wanted")
    return int(uid), int(gid)


def _process(base: oci.Process, given: dict[str, Any]) -> oci.Process:
    """The image's settings: what was given, over what the base image has."""
    from casemate.image import manifest as oci

    env = {item.partition("=")[0]: item for item in [*(base.Env or []), *given["env"]]}
    if any("=" not in item or item.startswith("=") for item in env.values()):
        raise Unusable("--env: NAME=VALUE is wanted")
    ports = [port if "/" in port else f"{port}/tcp" for port in given["expose"]]
    labels = {**(base.Labels or {}), **{k: v for k, _, v in (item.partition("=") for item in given["label"])}}
    return oci.Process(
        Entrypoint=list(given["entrypoint"]) or base.Entrypoint,
        # As docker does: a new entrypoint does not inherit arguments that were meant for the old one.
        Cmd=list(given["cmd"]) or (None if given["entrypoint"] else base.Cmd),
        Env=list(env.values()) or None,
        User=given["user"] or base.User,
        WorkingDir=given["workdir"] or base.WorkingDir,
        ExposedPorts={**(base.ExposedPorts or {}), **{port: {} for port in ports}} or None,
        Volumes=base.Volumes,
        Labels=labels or None,
        StopSignal=given["stop_signal"] or base.StopSignal,
    )
