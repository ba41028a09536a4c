"""OCI and Docker v2 documents: manifest, index, image configuration. Bounded, and the only error is `Malformed`.

Spec: OCI image-spec 1.1 (manifest.md, image-index.md, config.md, descriptor.md), Docker image manifest v2 schema 2.
"""

from __future__ import annotations

import os as _os
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from casemate.errors import Malformed
from casemate.wire import jcs

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
ACCEPTED = (OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST)
ENCRYPTED = "+encrypted"
MAX_MANIFEST = 4 << 20
MAX_CONFIG = 4 << 20
MAX_LAYERS = 128
MAX_BLOB = 1 << 40

Digest = Annotated[str, Meta(pattern=r"^sha256:[0-9a-f]{64}$(?!\n)")]
Text = Annotated[str, Meta(max_length=65536)]
Annotations = dict[Annotated[str, Meta(max_length=1024)], Text]
Strings = Annotated[list[Text], Meta(max_length=4096)]
T = TypeVar("T")


class Platform(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an index says of one of its manifests."""

    architecture: str
    os: str
    variant: str = ""


class Descriptor(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """A blob by media type, digest and size in bytes."""

    media_type: Annotated[str, Meta(max_length=255)]
    digest: Digest
    size: Annotated[int, Meta(ge=0, le=MAX_BLOB)]
    annotations: Annotations | None = None
    platform: Platform | None = None

    def annotation(self, name: str) -> str | None:
        """One annotation, or None."""
        return (self.annotations or {}).get(name)


class Manifest(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """An image manifest: its configuration and layers, lowest first."""

    schema_version: Annotated[int, Meta(ge=2, le=2)]
    config: Descriptor
    layers: Annotated[tuple[Descriptor, ...], Meta(max_length=MAX_LAYERS)]
    media_type: str = ""
    annotations: Annotations | None = None


class Index(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """An image index (manifest list)."""

    schema_version: Annotated[int, Meta(ge=2, le=2)]
    manifests: Annotated[tuple[Descriptor, ...], Meta(max_length=1024)]
    media_type: str = ""
    annotations: Annotations | None = None


class Process(msgspec.Struct, frozen=True, omit_defaults=True):
    """The ``config`` member of an image configuration; field names are the document's own."""

    Entrypoint: Strings | None = None
    Cmd: Strings | None = None
    Env: Strings | None = None
    User: Annotated[str, Meta(max_length=256)] | None = None
    WorkingDir: Annotated[str, Meta(max_length=4096)] | None = None
    ExposedPorts: Annotated[dict[str, Any], Meta(max_length=1024)] | None = None
    Volumes: Annotated[dict[str, Any], Meta(max_length=1024)] | None = None
    Labels: Annotations | None = None
    StopSignal: Annotated[str, Meta(max_length=32)] | None = None


class RootFs(msgspec.Struct, frozen=True):
    """The digests of the uncompressed layer tars, lowest first."""

    type: str
    diff_ids: Annotated[tuple[Digest, ...], Meta(max_length=MAX_LAYERS)]


class Config(msgspec.Struct, frozen=True, omit_defaults=True):
    """An image configuration: how its process starts, and what its layers hash to."""

    architecture: str
    os: str
    rootfs: RootFs
    config: Process | None = None
    created: str | None = None
    history: list[Any] | None = None

    @property
    def process(self) -> Process:
        """The ``config`` member, empty when absent."""
        return self.config or Process()


class LayerKind(msgspec.Struct, frozen=True):
    """What a layer's media type says: `compression` is gzip, zstd or none."""

    compression: str
    encrypted: bool


def parse(data: bytes) -> Manifest | Index:
    """The manifest or index in `data`."""
    document = jcs.parse_object(data, "image manifest", limit=MAX_MANIFEST)
    if "manifests" in document and "layers" in document:
        raise Malformed("image manifest: both manifests and layers (an index and a manifest at once)")
    index = "manifests" in document
    media_type = document.get("mediaType", OCI_INDEX if index else OCI_MANIFEST)
    if media_type not in ((OCI_INDEX, DOCKER_LIST) if index else (OCI_MANIFEST, DOCKER_MANIFEST)):
        raise Malformed(f"image manifest: media type {str(media_type)[:80]!r} is not that of its content")
    return _convert(document, Index, "image index") if index else _convert(document, Manifest, "image manifest")


def parse_image(data: bytes) -> Manifest:
    """The manifest of one image in `data`; an index is `Malformed` here."""
    document = parse(data)
    if isinstance(document, Index):
        raise Malformed("image manifest: an index where the manifest of one image is wanted")
    return document


def parse_config(data: bytes) -> Config:
    """The image configuration in `data`."""
    return _convert(jcs.parse_object(data, "image configuration", limit=MAX_CONFIG), Config, "image configuration")


def choose(index: Index, *, architecture: str = "", os: str = "linux") -> Descriptor:
    """The index's manifest for this machine (or for `architecture`, in Go's names)."""
    wanted = architecture or go_architecture()
    for descriptor in index.manifests:
        if descriptor.platform and (descriptor.platform.os, descriptor.platform.architecture) == (os, wanted):
            return descriptor
    raise Malformed(f"image index: no manifest for {os}/{wanted}")


def go_architecture() -> str:
    """This machine's architecture in Go's names, which OCI uses."""
    machine = _os.uname().machine
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def layer_kind(media_type: str) -> LayerKind:
    """What `media_type` says of a layer; foreign layers and unknown types are `Malformed`."""
    encrypted = media_type.endswith(ENCRYPTED)
    base = media_type.removesuffix(ENCRYPTED)
    for prefix, marks in ((OCI_LAYER, {"": "none", "+gzip": "gzip", "+zstd": "zstd"}), (DOCKER_LAYER, _DOCKER_MARKS)):
        if base.startswith(prefix) and base[len(prefix) :] in marks:
            return LayerKind(marks[base[len(prefix) :]], encrypted)
    raise Malformed(f"image layer: media type {media_type[:80]!r} is not known")


_DOCKER_MARKS = {"": "none", ".gzip": "gzip", ".zstd": "zstd"}


def encode(document: Manifest | Index | Config) -> bytes:
    """Canonical JSON of a document that we make."""
    return jcs.canonical(msgspec.to_builtins(document))


def _convert(document: dict[str, Any], kind: type[T], name: str) -> T:
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise Malformed(f"{name}: {error}") from error
