"""Prepare one container on the agent's tmpfs: its root folder, secrets, files, local API, and the bundle.

<run>/containers/<name>/{bundle,rootfs,upper,work,files,api.sock}    <run>/secrets/<name>/...
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from casemate.guest import containers, secrets
from casemate.guest.containers import Places
from casemate.schema.manifest import Container

OpenApi = Callable[[Container, Path], bool]


class Bundles:
    """Makes bundles under `run`; `overlays` lists the root folders that were mounted."""

    def __init__(self, run: Path, *, overlay: bool, volumes: Mapping[str, Path]) -> None:
        self._run, self._overlay, self._volumes = run, overlay, volumes
        self.overlays: list[Path] = []

    def prepare(
        self, container: Container, image: Any, keeper: secrets.Keeper, source: secrets.Source, api: OpenApi
    ) -> Path:
        """The bundle's folder; the container's secrets are in place and its API answers when this returns."""
        home = self._run / "containers" / container.name
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        process = image.config.process
        rootfs = self._root(home, image.rootfs)
        socket = home / "api.sock"
        places = Places(
            bundle=home / "bundle",
            rootfs=rootfs,
            secrets=self._run / "secrets" / container.name,
            files=home / "files",
            volumes=self._volumes,
            api=socket if api(container, socket) else None,
        )
        user = containers.user_of(container, process, rootfs)
        kept, mounts = containers.plan_secrets(container, places, user)
        keeper.add(kept)
        environment = secrets.environment(container, source)
        containers.build(container, process, places, user=user, environment=environment, secret_mounts=mounts)
        return places.bundle

    def _root(self, home: Path, image: Path) -> Path:
        """A root folder of the container's own over the image, which several containers may share."""
        if not self._overlay:
            return image
        from casemate.drivers import mounts

        upper, work, rootfs = (home / name for name in ("upper", "work", "rootfs"))
        for folder in (upper, work, rootfs):
            folder.mkdir(mode=0o755, exist_ok=True)
        image.chmod(0o755)
        mounts.mount("overlay", rootfs, "overlay", options=f"lowerdir={image},upperdir={upper},workdir={work}")
        self.overlays.append(rootfs)
        return rootfs
