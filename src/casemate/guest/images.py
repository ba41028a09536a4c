"""The workload's images, pulled in the background while volumes are opened; each image once, however many use it."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from casemate.errors import Finding, Refused
from casemate.schema.manifest import Manifest

Phase = Callable[..., None]


class Images:
    """Reference → pulled image (`casemate.drivers.pull.PulledImage`); `folder` lies on the agent's tmpfs."""

    def __init__(
        self, manifest: Manifest, folder: Path, keys: dict[str, bytes], phase: Phase, pull: Callable[..., Any] | None
    ) -> None:
        self._manifest, self._folder, self._keys, self._phase, self._pull = manifest, folder, keys, phase, pull
        self._images: dict[str, Any] = {}
        self._trouble: Exception | None = None
        self._findings: list[Finding] = []
        self._thread = threading.Thread(target=self._work, name="images", daemon=True)

    def begin(self) -> None:
        """Start pulling."""
        self._thread.start()

    def wait(self) -> dict[str, Any]:
        """All images; raises what made one of them fail, or one `Refused` with the findings of every refused image."""
        self._thread.join()
        if self._trouble is not None:
            raise self._trouble
        if self._findings:
            raise Refused(self._findings)
        return self._images

    def _work(self) -> None:
        try:
            for container in self._manifest.containers:
                if container.image not in self._images:
                    self._judge(container.image)
        except Exception as error:  # noqa: BLE001 - handed over to the thread that waits
            self._trouble = error

    def _judge(self, reference: str) -> None:
        """Pull one image; a refusal is kept, so that the others are judged too and all reasons are told at once."""
        try:
            self._images[reference] = self._one(reference)
        except Refused as refusal:
            self._findings += refusal.findings

    def _one(self, reference: str) -> Any:
        pull = self._pull or _registry_pull()
        target = self._folder / hashlib.sha256(reference.encode()).hexdigest()[:16]
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        pulled = pull(
            reference,
            registry=self._manifest.registries,
            signers=self._manifest.signers,
            keys=self._key,
            target=target,
        )
        seconds = {key: round(value, 3) for key, value in pulled.seconds.items()}
        for name in ("pull", "verify", "unpack"):
            self._phase(name, seconds=seconds.get(name, 0.0), bytes=pulled.stored_bytes, entries=pulled.entries)
        return pulled

    def _key(self, uri: str) -> bytes:
        """Only what the manifest lists for images was fetched; a layer that names another key gets none."""
        if uri not in self._keys:
            raise Refused.because(
                "image.key",
                expected="a key that a container lists under image_keys",
                found=uri[:200],
                hint="the image was encrypted for another key; list it in the manifest if that is right",
            )
        return self._keys[uri]


def _registry_pull() -> Callable[..., Any]:
    from casemate.drivers.pull import pull

    return pull
