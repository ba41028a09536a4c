"""Images from layouts to registries, and signatures beside images that are there already."""

from __future__ import annotations

from collections.abc import Callable

from casemate.drivers.registry import Missing, Registry
from casemate.errors import Malformed
from casemate.image import cosign
from casemate.image import manifest as oci
from casemate.image import reference as names
from casemate.image.layout import Layout

Progress = Callable[[str, oci.Descriptor, bool], None]


def push(
    layout: Layout,
    image: oci.Descriptor,
    client: Registry,
    where: names.Reference,
    progress: Progress | None = None,
) -> names.Reference:
    """Push one image and, if the layout has them, its signatures; the reference by digest.

    `progress` hears of each blob: (role, descriptor, whether it was uploaded rather than found there).
    """
    _send(layout, image, client, (where.repository, where.tag or image.digest), progress)
    signature = layout.named(cosign.tag(image.digest))
    if signature is not None:
        _send(layout, signature, client, (where.repository, cosign.tag(image.digest)), progress)
    return where.at(image.digest)


def add_signature(client: Registry, repository: str, digest: str, signature: cosign.Signature) -> None:
    """Put a signature beside the image `digest`, after those that are there."""
    known: list[cosign.Signature] = []
    try:
        stored = oci.parse_image(client.manifest(repository, cosign.tag(digest)).body)
        for descriptor, value in cosign.stored(stored):
            payload = client.small(repository, descriptor, limit=cosign.MAX_PAYLOAD)
            known.append(cosign.Signature(payload, value))
    except Missing:
        known = []
    body, config = cosign.signature_manifest([*known, signature])
    document = oci.parse_image(body)
    client.put_blob(repository, document.config.digest, len(config), [config])
    for descriptor, item in zip(document.layers, [*known, signature], strict=True):
        client.put_blob(repository, descriptor.digest, descriptor.size, [item.payload])
    client.put_manifest(repository, cosign.tag(digest), body, oci.OCI_MANIFEST)


def sign_layout(layout: Layout, image: oci.Descriptor, signature: cosign.Signature) -> None:
    """Put a signature beside an image of a layout, after those that are there."""
    known: list[cosign.Signature] = []
    before = layout.named(cosign.tag(image.digest))
    if before is not None:
        for descriptor, value in cosign.stored(layout.manifest(before)):
            known.append(cosign.Signature(layout.read(descriptor, cosign.MAX_PAYLOAD), value))
    body, config = cosign.signature_manifest([*known, signature])
    layout.add([config])
    for item in [*known, signature]:
        layout.add([item.payload])
    layout.put(body, cosign.tag(image.digest))


def _send(
    layout: Layout,
    image: oci.Descriptor,
    client: Registry,
    place: tuple[str, str],
    progress: Progress | None,
) -> None:
    """Push one manifest and its blobs to (repository, tag or digest)."""
    repository, target = place
    body = layout.read(image)
    document = oci.parse(body)
    if isinstance(document, oci.Index):
        raise Malformed("push: an index of several images; push one of them", hint="FOLDER:NAME")
    for role, descriptor in (("config", document.config), *(("layer", layer) for layer in document.layers)):
        sent = client.put_blob(repository, descriptor.digest, descriptor.size, layout.chunks(descriptor))
        if progress:
            progress(role, descriptor, sent)
    client.put_manifest(repository, target, body, document.media_type or oci.OCI_MANIFEST)
