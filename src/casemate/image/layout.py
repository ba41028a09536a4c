"""OCI image layouts: a folder with ``oci-layout``, ``index.json`` and ``blobs/sha256/<hex>``.

Spec: OCI image-spec 1.1 image-layout.md. What is read is bounded and its digest compared; what is written appears whole
(temporary file, then rename). Signatures lie in the same index, named ``sha256-<hex>.sig`` as at a registry.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from casemate.crypto import pins
from casemate.errors import Malformed, Unusable
from casemate.image import manifest as oci
from casemate.wire import jcs

REF_NAME = "org.opencontainers.image.ref.name"
SIGNATURE_SUFFIX = ".sig"
CHUNK = 1 << 20
_VERSION = b'{"imageLayoutVersion":"1.0.0"}'


class Layout:
    """The layout at `path`. Not for two writers at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def open(cls, path: Path) -> Layout:
        """An existing layout."""
        found = cls(path)
        document = jcs.parse_object(found._file("oci-layout", 4096), "oci-layout")
        if document.get("imageLayoutVersion") != "1.0.0":
            raise Malformed(f"{path}: layout version {str(document.get('imageLayoutVersion'))[:32]!r} is not known")
        return found

    @classmethod
    def create(cls, path: Path) -> Layout:
        """An empty layout in a folder that is missing or empty."""
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise Unusable(f"{path} exists already", hint="name a new folder for the image")
        made = cls(path)
        try:
            (path / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
            (path / "oci-layout").write_bytes(_VERSION)
        except OSError as error:
            raise Unusable(f"{path}: {error.strerror}") from error
        made._write_index(oci.Index(2, (), oci.OCI_INDEX))
        return made

    def index(self) -> oci.Index:
        """What the layout holds."""
        document = oci.parse(self._file("index.json", oci.MAX_MANIFEST))
        if not isinstance(document, oci.Index):
            raise Malformed(f"{self.path}: index.json is not an index")
        return document

    def image(self, name: str | None = None) -> oci.Descriptor:
        """The layout's only image, or the one called `name`; signatures do not count."""
        images = [item for item in self.index().manifests if not _name(item).endswith(SIGNATURE_SUFFIX)]
        if name is not None:
            images = [item for item in images if _name(item) == name]
        if len(images) != 1:
            known = ", ".join(_name(item) or item.digest for item in images) or "none"
            raise Unusable(f"{self.path}: one image is wanted, found: {known}", hint="name one: FOLDER:NAME")
        return images[0]

    def named(self, name: str) -> oci.Descriptor | None:
        """The manifest called `name`, signatures included."""
        return next((item for item in self.index().manifests if _name(item) == name), None)

    def read(self, descriptor: oci.Descriptor, limit: int = oci.MAX_MANIFEST) -> bytes:
        """A small blob, whole."""
        if descriptor.size > limit:
            raise Malformed(f"{descriptor.digest}: {descriptor.size} bytes, at most {limit} allowed")
        return b"".join(self.chunks(descriptor))

    def manifest(self, descriptor: oci.Descriptor) -> oci.Manifest:
        """The image manifest at `descriptor`; of an index, this machine's."""
        document = oci.parse(self.read(descriptor))
        return document if isinstance(document, oci.Manifest) else self.manifest(oci.choose(document))

    def config(self, manifest: oci.Manifest) -> oci.Config:
        """The image's configuration."""
        return oci.parse_config(self.read(manifest.config, oci.MAX_CONFIG))

    def chunks(self, descriptor: oci.Descriptor) -> Iterator[bytes]:
        """A blob's bytes; the last step compares size and digest."""
        digest, size = hashlib.sha256(), 0
        try:
            with self._blob(descriptor.digest).open("rb") as file:
                while chunk := file.read(CHUNK):
                    digest.update(chunk)
                    size += len(chunk)
                    yield chunk
        except FileNotFoundError as error:
            raise Unusable(f"{self.path}: blob {descriptor.digest} is missing") from error
        if size != descriptor.size or "sha256:" + digest.hexdigest() != descriptor.digest:
            raise Malformed(f"{self.path}: blob {descriptor.digest} is damaged")

    def add(self, chunks: Iterable[bytes]) -> tuple[str, int]:
        """Store a blob; (digest, size)."""
        folder = self.path / "blobs" / "sha256"
        digest, size = hashlib.sha256(), 0
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".new-", delete=False) as file:
            try:
                for chunk in chunks:
                    digest.update(chunk)
                    size += len(chunk)
                    file.write(chunk)
                file.flush()
                Path(file.name).chmod(0o644)
                Path(file.name).rename(folder / digest.hexdigest())
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
        return "sha256:" + digest.hexdigest(), size

    def put(self, body: bytes, name: str, *, media_type: str = oci.OCI_MANIFEST) -> oci.Descriptor:
        """Store a manifest and list it under `name`, in the place of what had that name before."""
        digest, size = self.add([body])
        entry = oci.Descriptor(media_type, digest, size, {REF_NAME: name})
        rest = [item for item in self.index().manifests if _name(item) != name]
        self._write_index(oci.Index(2, (*rest, entry), oci.OCI_INDEX))
        return entry

    def prune(self) -> None:
        """Remove signatures of images that are gone, then blobs that nothing refers to (plaintext layers)."""
        kept = [item for item in self.index().manifests if not self._orphan(item)]
        self._write_index(oci.Index(2, tuple(kept), oci.OCI_INDEX))
        alive: set[str] = set()
        todo = list(kept)
        while todo:
            item = todo.pop()
            alive.add(item.digest)
            document = oci.parse(self.read(item))
            if isinstance(document, oci.Index):
                todo.extend(document.manifests)
            else:
                alive |= {document.config.digest, *(layer.digest for layer in document.layers)}
        for blob in (self.path / "blobs" / "sha256").iterdir():
            if f"sha256:{blob.name}" not in alive:
                blob.unlink()

    def _orphan(self, item: oci.Descriptor) -> bool:
        name = _name(item)
        signed = name.removesuffix(SIGNATURE_SUFFIX).replace("-", ":", 1)
        return name.endswith(SIGNATURE_SUFFIX) and signed not in {other.digest for other in self.index().manifests}

    def _blob(self, digest: str) -> Path:
        if not pins.is_digest(digest):
            raise Malformed(f"{digest[:80]!r} is not a digest")
        return self.path / "blobs" / "sha256" / digest.removeprefix("sha256:")

    def _file(self, name: str, limit: int) -> bytes:
        try:
            with (self.path / name).open("rb") as file:
                data = file.read(limit + 1)
        except OSError as error:
            raise Unusable(
                f"{self.path} is not an OCI layout: {name} cannot be read ({error.strerror})",
                hint="make one with casemate image build, or skopeo copy … oci:FOLDER:NAME",
            ) from error
        if len(data) > limit:
            raise Malformed(f"{self.path}/{name}: more than {limit} bytes")
        return data

    def _write_index(self, index: oci.Index) -> None:
        new = self.path / ".index.json"
        new.write_bytes(oci.encode(index))
        os.replace(new, self.path / "index.json")  # noqa: PTH105 - one name for "atomically, over what was there"


def _name(descriptor: oci.Descriptor) -> str:
    return descriptor.annotation(REF_NAME) or ""
