"""Images from folders and tars: the same input gives the same bytes, on every machine with the same zlib.

Names are sorted, times cut to `epoch` (SOURCE_DATE_EPOCH), owners numeric, hard links kept, ``security.capability``
kept as a PAX record; devices, sockets and FIFOs are errors, because no guest would unpack them.
Spec: OCI image-spec 1.1 (layer.md, config.md), pax.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from casemate.errors import Unusable
from casemate.image import layers as streams
from casemate.image import manifest as oci
from casemate.image import ocicrypt, packets, tarstream
from casemate.image.layout import Layout

CHUNK = 1 << 20
MEDIA_TYPES = {"gzip": oci.OCI_LAYER + "+gzip", "none": oci.OCI_LAYER}
Owner = tuple[int, int] | None
Layer = tuple[oci.Descriptor, str]


def folder_tar(root: Path, *, epoch: int = 0, owner: Owner = None) -> Iterator[bytes]:
    """The tar of a folder's content; `owner` replaces every uid and gid."""
    if not root.is_dir():
        raise Unusable(f"{root}: not a folder")
    seen: dict[tuple[int, int], str] = {}
    written = 0
    for path in _walk(root):
        name = path.relative_to(root).as_posix()
        info = _info(path, name, seen, epoch, owner)
        header = info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        yield header
        written += len(header)
        if info.isreg():
            yield from _content(path, info.size)
            written += info.size + -info.size % tarstream.BLOCK
    yield bytes(2 * tarstream.BLOCK + -(written + 2 * tarstream.BLOCK) % tarfile.RECORDSIZE)


def file_tar(path: Path) -> Iterator[bytes]:
    """The bytes of a tar file, inflated if it is gzipped; what a guest would refuse to read is an error."""
    try:
        with path.open("rb") as file:
            compression = "gzip" if file.read(2) == b"\x1f\x8b" else "none"
            for entry in tarstream.Reader(_inflated(path, compression)):
                if entry.kind in (tarstream.CHARACTER, tarstream.BLOCK_DEVICE, tarstream.FIFO):
                    raise Unusable(f"{path}: {entry.name[:120]!r} is a device or FIFO", hint="leave it out")
    except OSError as error:
        raise Unusable(f"{path}: {error.strerror}") from error
    yield from _inflated(path, compression)


def add_layer(layout: Layout, tar: Iterable[bytes], *, compression: str = "gzip") -> Layer:
    """Store a tar as a layer; (its descriptor, its diff-id)."""
    diff = hashlib.sha256()

    def tapped() -> Iterator[bytes]:
        for chunk in tar:
            diff.update(chunk)
            yield chunk

    digest, size = layout.add(_compressed(tapped(), compression))
    return oci.Descriptor(MEDIA_TYPES[compression], digest, size), "sha256:" + diff.hexdigest()


def add_image(
    layout: Layout,
    layers: Sequence[Layer],
    process: oci.Process,
    *,
    name: str = "latest",
    architecture: str = "",
    epoch: int = 0,
) -> oci.Descriptor:
    """Store configuration and manifest of an image with these layers, lowest first."""
    created = datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    config = oci.encode(
        oci.Config(
            architecture or oci.go_architecture(),
            "linux",
            oci.RootFs("layers", tuple(diff_id for _, diff_id in layers)),
            process,
            created,
            [{"created": created, "created_by": "casemate image build"} for _ in layers],
        )
    )
    digest, size = layout.add([config])
    described = oci.Descriptor(oci.OCI_CONFIG, digest, size)
    manifest = oci.Manifest(2, described, tuple(layer for layer, _ in layers), oci.OCI_MANIFEST)
    return layout.put(oci.encode(manifest), name)


def copy_layers(source: Layout, image: oci.Manifest, target: Layout) -> list[Layer]:
    """Copy an image's layers into `target` as OCI layers; their bytes stay."""
    copied = []
    for layer, diff_id in zip(image.layers, source.config(image).rootfs.diff_ids, strict=True):
        kind = oci.layer_kind(layer.media_type)
        media_type = oci.OCI_LAYER + ("" if kind.compression == "none" else f"+{kind.compression}")
        if kind.encrypted:
            raise Unusable("an encrypted image cannot be built upon", hint="build on the plain one, encrypt the result")
        target.add(source.chunks(layer))
        copied.append((oci.Descriptor(media_type, layer.digest, layer.size), diff_id))
    return copied


def encrypt(
    layout: Layout,
    image: oci.Descriptor,
    keys: Sequence[tuple[str, bytes]],
    *,
    name: str = "latest",
    version: int = 2,
    progress: Callable[[int, oci.Descriptor], None] | None = None,
) -> oci.Descriptor:
    """Encrypt every layer, wrapped for each (``kbs:///`` URI, 32-byte key); plaintext leaves the layout."""
    plain = layout.manifest(image)
    sealed = []
    for number, layer in enumerate(plain.layers):
        if progress:
            progress(number, layer)
        work = ocicrypt.Encryption(layer)
        layout.add(work.chunks(layout.chunks(layer)))
        secret = work.secret.encode()
        sealed.append(work.descriptor(packets.wrap(secret, kid, key, version=version) for kid, key in keys))
    manifest = oci.Manifest(2, plain.config, tuple(sealed), oci.OCI_MANIFEST, plain.annotations)
    entry = layout.put(oci.encode(manifest), name)
    layout.prune()
    return entry


def _walk(root: Path) -> Iterator[Path]:
    """Everything below `root` but `root` itself, folders before their content, names in byte order."""
    try:
        for entry in sorted(os.scandir(root), key=lambda item: os.fsencode(item.name)):
            path = Path(entry.path)
            yield path
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(path)
    except OSError as error:
        raise Unusable(f"{root}: {error.strerror}") from error


def _info(path: Path, name: str, seen: dict[tuple[int, int], str], epoch: int, owner: Owner) -> tarfile.TarInfo:
    found = path.lstat()
    info = tarfile.TarInfo(name)
    info.mode, info.mtime = stat.S_IMODE(found.st_mode), min(int(found.st_mtime), epoch)
    info.uid, info.gid = owner or (found.st_uid, found.st_gid)
    if stat.S_ISDIR(found.st_mode):
        info.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(found.st_mode):
        info.type, info.linkname = tarfile.SYMTYPE, str(path.readlink())
    elif not stat.S_ISREG(found.st_mode):
        raise Unusable(
            f"{path}: neither file, folder nor link", hint="leave devices, sockets and FIFOs out of the image"
        )
    elif (first := seen.setdefault((found.st_dev, found.st_ino), name)) != name:
        info.type, info.linkname = tarfile.LNKTYPE, first
    else:
        info.size = found.st_size
        if "security.capability" in os.listxattr(path, follow_symlinks=False):
            value = os.getxattr(path, "security.capability", follow_symlinks=False)
            info.pax_headers = {"SCHILY.xattr.security.capability": value.decode("utf-8", "surrogateescape")}
    return info


def _content(path: Path, size: int) -> Iterator[bytes]:
    left = size
    with path.open("rb") as file:
        while left and (chunk := file.read(min(left, CHUNK))):
            left -= len(chunk)
            yield chunk
    if left:
        raise Unusable(f"{path}: it shrank while it was read")
    yield bytes(-size % tarstream.BLOCK)


def _inflated(path: Path, compression: str) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from streams.inflate(iter(lambda: file.read(CHUNK), b""), compression, streams.Limits())


def _compressed(chunks: Iterable[bytes], compression: str) -> Iterator[bytes]:
    if compression == "none":
        yield from chunks
        return
    work = zlib.compressobj(6, wbits=31)  # the header carries no name and no time
    for chunk in chunks:
        if piece := work.compress(chunk):
            yield piece
    yield work.flush()
