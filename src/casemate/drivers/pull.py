"""Pull an image into a folder, trusting nobody on the way: what the guest does before it runs a container.

Order (each step only on what the step before has passed)
1. the manifest's bytes hash to the digest in the reference;
2. a signer of the workload's manifest has signed this digest for this repository (`casemate.image.cosign`);
3. per layer: size, digest and HMAC of the stored bytes; then decryption, decompression, unpacking into a staging folder
   that nobody else sees; the diff-id at the stream's end;
4. when every layer has passed, the staging folder becomes ``rootfs``.

Stored layers lie in one temporary file at a time, under `target` (in the guest: in its encrypted memory). Nothing of a
layer is ever whole in the process's memory.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec

from casemate.drivers.registry import Missing, Registry
from casemate.drivers.registryauth import Credentials
from casemate.errors import Finding, Malformed, Refused, Unusable
from casemate.image import cosign, layers, ocicrypt, packets, unpack
from casemate.image import manifest as oci
from casemate.image import reference as names
from casemate.schema import manifest as schema

Keys = Callable[[str], bytes]
Progress = Callable[[str, dict[str, object]], None]


class Limits(msgspec.Struct, frozen=True):
    """Bounds of one pull: of each layer's stream, and of the unpacked image."""

    layer: layers.Limits = msgspec.field(default_factory=layers.Limits)
    image: unpack.Limits = msgspec.field(default_factory=unpack.Limits)


class PulledImage(msgspec.Struct, frozen=True):
    """A checked image: its configuration, its root folder, the manifest's digest, what was proved, seconds a phase."""

    config: oci.Config
    rootfs: Path
    digest: str
    findings: tuple[Finding, ...]
    stored_bytes: int = 0
    entries: int = 0
    seconds: dict[str, float] = msgspec.field(default_factory=dict)


def pull(
    reference: str,
    *,
    registry: Sequence[schema.Registry] = (),
    signers: Sequence[schema.Signer],
    keys: Keys,
    target: Path,
    progress: Progress | None = None,
    limits: Limits | None = None,
) -> PulledImage:
    """Pull `reference` (with a digest) into ``target/rootfs``, which must not exist; `target` is made if missing.

    `registry` is the manifest's table, `signers` its signers; `keys` gives a broker resource by its ``kbs:///`` URI
    and is asked for layer keys and registry credentials, once each. `progress` hears of phases ``pull``, ``verify``,
    ``key`` and ``unpack``. Raises `Refused` or `Malformed` for what is wrong with the image, `Unavailable` and
    `Unusable` for the rest; then nothing stays in `target`.
    """
    image = names.parse(reference, pinned=True)
    job = _Job(
        image,
        names.locate(image, registry),
        keys=_once(keys),
        target=target,
        limits=limits or Limits(),
        progress=progress or _silent,
    )
    with job.connect() as client:
        digest, manifest, finding = job.verified_manifest(client, signers)
        config = job.configuration(client, manifest)
        with _staging(target) as staging:
            job.layers(client, manifest, config, staging)
            rootfs = target / "rootfs"
            staging.rename(rootfs)
    return PulledImage(config, rootfs, digest, (finding,), job.stored, job.entries, job.seconds)


def verify(client: Registry, image: names.Reference, repository: str, signers: Sequence[schema.Signer]) -> Finding:
    """Judge the signatures that lie beside the pinned `image`; the passed finding, or `Refused`."""
    signatures = []
    try:
        document = oci.parse_image(client.manifest(repository, cosign.tag(image.digest or "")).body)
    except Missing:
        return cosign.verify(image, (), signers)
    for descriptor, signature in cosign.stored(document):
        payload = client.small(repository, descriptor, limit=cosign.MAX_PAYLOAD)
        signatures.append(cosign.Signature(payload, signature))
    return cosign.verify(image, signatures, signers)


class _Job:
    """What the steps of one pull share."""

    def __init__(
        self,
        image: names.Reference,
        location: names.Location,
        *,
        keys: Keys,
        target: Path,
        limits: Limits,
        progress: Progress,
    ) -> None:
        self._image, self._location, self._keys = image, location, keys
        self._target, self._limits, self._progress = target, limits, progress
        self.stored = self.entries = 0
        self.seconds: dict[str, float] = {}

    def connect(self) -> Registry:
        where = self._location
        credentials = None
        if where.credentials:
            credentials = Credentials.parse(self._keys(where.credentials), where.registry)
        return Registry(where.registry, insecure=where.insecure, credentials=credentials, pin=where.key)

    def verified_manifest(
        self, client: Registry, signers: Sequence[schema.Signer]
    ) -> tuple[str, oci.Manifest, Finding]:
        """Steps 1 and 2: (digest, manifest of this machine's image, what the signature proved)."""
        repository, digest = self._location.repository, self._image.digest or ""
        with self._timed("pull"):
            fetched = client.manifest(repository, digest)
        self._progress("verify", {"image": str(self._image)})
        with self._timed("verify"):
            finding = verify(client, self._image, repository, signers)
        document = oci.parse(fetched.body)
        if isinstance(document, oci.Index):
            document = oci.parse_image(client.manifest(repository, oci.choose(document).digest).body)
        return digest, document, finding

    def configuration(self, client: Registry, manifest: oci.Manifest) -> oci.Config:
        body = client.small(self._location.repository, manifest.config, limit=oci.MAX_CONFIG)
        config = oci.parse_config(body)
        if len(config.rootfs.diff_ids) != len(manifest.layers):
            raise Malformed(f"image: {len(manifest.layers)} layers, {len(config.rootfs.diff_ids)} diff-ids")
        return config

    def layers(self, client: Registry, manifest: oci.Manifest, config: oci.Config, staging: Path) -> None:
        """Step 3, lowest layer first. Every key is asked for before the first byte is fetched."""
        self._progress("key", {"layers": len(manifest.layers)})
        with self._timed("key"):
            secrets = [self._secret(descriptor) for descriptor in manifest.layers]
        with unpack.Unpacker(staging, limits=self._limits.image) as unpacker:
            for number, (descriptor, secret) in enumerate(zip(manifest.layers, secrets, strict=True)):
                detail: dict[str, object] = {
                    "layer": number + 1, "of": len(manifest.layers), "bytes": descriptor.size,
                }  # fmt: skip
                with self._temporary() as file:
                    self._progress("pull", detail)
                    with self._timed("pull"):
                        self._take_in(client, descriptor, secret, number + 1, file)
                    self._progress("unpack", detail)
                    with self._timed("unpack"):
                        file.seek(0)
                        bounds = self._limits.layer
                        diff_id = config.rootfs.diff_ids[number]
                        unpacker.layer(layers.tar_chunks(_chunks(file), descriptor, secret, diff_id, limits=bounds))
                self.stored += descriptor.size
            self.entries = unpacker.entries

    def _secret(self, descriptor: oci.Descriptor) -> ocicrypt.LayerSecret | None:
        if not oci.layer_kind(descriptor.media_type).encrypted:
            return None
        return ocicrypt.LayerSecret.parse(packets.open_any(ocicrypt.packets(descriptor), self._keys))

    def _take_in(
        self,
        client: Registry,
        descriptor: oci.Descriptor,
        secret: ocicrypt.LayerSecret | None,
        number: int,
        file: BinaryIO,
    ) -> None:
        """Fetch a layer's stored bytes to `file` and judge them."""
        intake = layers.Intake(descriptor, secret, number=number, limits=self._limits.layer)
        for chunk in client.stored(self._location.repository, descriptor):
            intake.update(chunk)
            file.write(chunk)
        intake.finish()

    @contextmanager
    def _temporary(self) -> Iterator[BinaryIO]:
        """A file without a name in `target`; its space is free again when it is closed."""
        try:
            with os.fdopen(_nameless(self._target), "w+b") as file:
                yield file
        except OSError as error:
            raise Unusable(
                f"image layer cannot be kept: {os.strerror(error.errno or 0)}",
                hint="is there room for the image? More memory for the VM may help",
            ) from error

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        begun = time.monotonic()
        try:
            yield
        finally:
            self.seconds[phase] = round(self.seconds.get(phase, 0.0) + time.monotonic() - begun, 4)


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(layers.CHUNK):
        yield chunk


@contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """A private folder in `target`, removed unless it was moved away."""
    if (target / "rootfs").exists():
        raise Unusable(f"{target}/rootfs exists already")
    hidden = target / f".pull-{os.urandom(8).hex()}"
    staging = hidden / "rootfs"
    try:
        target.mkdir(parents=True, exist_ok=True)
        hidden.mkdir(mode=0o700)
        staging.mkdir(mode=0o755)
    except OSError as error:
        raise Unusable(f"{target}: {os.strerror(error.errno or 0)}") from error
    try:
        yield staging
    finally:
        _remove(hidden)


def _remove(folder: Path) -> None:
    """Remove a staging folder: empty when all went well, and then without the import."""
    try:
        folder.rmdir()
    except OSError:
        import shutil

        shutil.rmtree(folder, ignore_errors=True)


def _nameless(folder: Path) -> int:
    """A file without a name in `folder`, read and write (tempfile's imports are too slow for an emulated guest)."""
    try:
        return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:  # a filesystem without O_TMPFILE
        name = folder / f".layer-{os.urandom(8).hex()}"
        fd = os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        name.unlink()
        return fd


def _once(keys: Keys) -> Keys:
    """`keys` with a memory for the time of one pull: a broker is asked once for each key."""
    known: dict[str, bytes] = {}

    def ask(uri: str) -> bytes:
        if uri not in known:
            known[uri] = keys(uri)
        return known[uri]

    return ask


def _silent(_: str, __: dict[str, object]) -> None:
    return None


__all__ = ["Keys", "Limits", "Progress", "PulledImage", "Refused", "pull", "verify"]
