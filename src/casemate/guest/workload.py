"""One workload from manifest to running containers: what `start.py` tells step by step is done here."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from casemate.errors import CasemateError, Finding, Refused, Unavailable
from casemate.guest import checks, sealed, secrets
from casemate.guest.attest import Attester
from casemate.guest.bundles import Bundles
from casemate.guest.control import Control
from casemate.guest.images import Images
from casemate.guest.resources import Brokers
from casemate.guest.settings import Settings
from casemate.guest.supervise import Supervisor, Task, reap_orphans
from casemate.schema.manifest import Container, Manifest
from casemate.wire.encoding import b64

if TYPE_CHECKING:
    from casemate.guest.localapi import Server
    from casemate.guest.settings import Runtime
    from casemate.guest.volumes import Volumes

GRACE = 10.0
_LOG_PART = 48 << 10
_REAP_SECONDS = 30.0


class Interrupted(CasemateError):
    """The workload was asked to stop before it ran."""


class Workload:
    """Everything that lives while the workload runs; `close` takes it down in the reverse order."""

    def __init__(self, manifest: Manifest, settings: Settings, control: Control) -> None:
        self._manifest, self._settings, self._control = manifest, settings, control
        self._containers = list(manifest.containers)  # sealed values are opened before they start
        self._grace: float | None = None
        self._end = threading.Event()
        self._keys: dict[str, bytes] = {}
        self._versions: dict[str, str] = {}
        self._findings: list[Finding] = []
        self._refusal: Refused | None = None
        self._volumes: Volumes | None = None
        self._mounted: dict[str, Path] = {}
        self._keeper: secrets.Keeper | None = None
        self._bundles: Bundles | None = None
        self._servers: list[Server] = []
        heard = self._heard if manifest.host.logs else None
        self.supervisor = Supervisor(settings.runtime or _crun(settings.run), self._happened, heard, self._end.set)

    def stop(self, grace: float) -> None:
        """The host wants an end; the main thread brings it about."""
        self._grace = grace
        self._end.set()

    def fetch_keys(self, brokers: Brokers) -> None:
        """The keys of all images, and whether the broker gives each secret at all.

        A refused secret is remembered until the images are judged too (`demand`), so that all reasons come at once.
        """
        wanted = {key for container in self._manifest.containers for key in container.image_keys}
        wanted |= {registry.credentials for registry in self._manifest.registries if registry.credentials}
        for uri in sorted(wanted):
            self._go_on()
            found = brokers.versioned(uri)
            self._keys[uri], self._versions[uri] = found.value, found.version
        self._containers = [sealed.opened(one, lambda uri: brokers.versioned(uri).value) for one in self._containers]
        listed = {secret.resource for container in self._containers for secret in container.secrets}
        for uri in sorted(listed):
            self._go_on()
            try:
                self._versions[uri] = brokers.versioned(uri).version
            except Refused as refusal:
                self._findings += refusal.findings
        self._control.phase("keys", count=len(wanted | listed))

    def demand(self, images: Images) -> dict[str, Any]:
        """The pulled images; `Refused` with everything that was refused among images and secrets."""
        try:
            pulled = images.wait()
        except Refused as refusal:
            raise Refused([*refusal.findings, *self._findings]) from None
        if self._findings:
            raise Refused(self._findings)
        return pulled

    def begin_pulling(self) -> Images:
        """Pull the images in the background."""
        self._go_on()
        settings = self._settings
        images = Images(self._manifest, settings.run / "images", self._keys, self._control.phase, settings.pull)
        images.begin()
        return images

    def open_volumes(self, brokers: Brokers) -> None:
        """Open what the manifest lists under `volumes`."""
        if self._manifest.volumes:
            from casemate.guest.volumes import Volumes

            self._volumes = Volumes(self._settings.run / "volumes", brokers)
            self._mounted = self._volumes.open_all(self._manifest)
            self._control.phase("volume", count=len(self._mounted))

    def run(self, images: dict[str, Any], brokers: Brokers, document: bytes, attester: Attester) -> None:
        """Start the containers in the manifest's order, then keep their secrets fresh."""
        self._keys.clear()
        run, overlay = self._settings.run, self._settings.overlay
        self._bundles = Bundles(run, overlay=overlay, volumes=self._mounted)
        self._keeper = secrets.Keeper(
            brokers,
            self._signal,
            self._settings.refresh_seconds,
            self._revoked,
            silence=self._settings.silence_seconds,
            asked={uri: version for uri, version in self._versions.items() if version},
            lease=brokers.lease,
        )

        def api(container: Container, path: Path) -> bool:
            return self._open_api(container, path, brokers, document, attester)

        for container in self._containers:
            self._go_on()
            bundle = self._bundles.prepare(container, images[container.image], self._keeper, brokers, api)
            self.supervisor.start(Task(container, bundle))
        self._keeper.start()
        self._control.phase("run", containers=len(self._manifest.containers), agent_kib=checks.resident_kib())

    def wait(self) -> None:
        """Until all containers ended or somebody asked to stop.

        `Refused` when the release was revoked meanwhile, `Unavailable` when a container ended badly by itself.
        """
        zombies: set[int] = set()
        while not self._end.wait(_REAP_SECONDS):
            zombies = reap_orphans(self.supervisor.processes(), zombies)
        if self._refusal is not None:
            raise self._refusal
        if self._grace is not None:
            return
        bad = [f"container {name} exited with code {code}" for name, code in self.supervisor.codes().items() if code]
        if bad:
            raise Unavailable("; ".join(bad))

    def close(self) -> None:
        """Stop containers, then close what they used. Nothing here keeps the machine from powering off."""
        self.supervisor.stop(GRACE if self._grace is None else self._grace)
        if self._keeper is not None:
            self._keeper.stop()
        for server in self._servers:
            server.close()
        if self._bundles is not None and self._bundles.overlays:
            from casemate.drivers import mounts

            for overlay in reversed(self._bundles.overlays):
                _quietly(lambda place=overlay: mounts.unmount(place, lazy=True))  # type: ignore[misc] # bound now
        if self._volumes is not None:
            for trouble in self._volumes.close():
                self._control.phase("run", trouble=trouble[:200])

    def _open_api(
        self, container: Container, path: Path, brokers: Brokers, document: bytes, attester: Attester
    ) -> bool:
        """Serve the local API at `path` if the manifest grants the container anything."""
        if container.api == type(container.api)():
            return False
        from casemate.guest.localapi import Api, Backend, Server, local_pin

        backend = Backend(document, attester, brokers.resource, brokers.throwaway_token, local_pin)
        self._servers.append(Server(path, Api(self._manifest, container, backend)))
        return True

    def _revoked(self, refusal: Refused) -> None:
        """The release was taken back or is not judged: what was given is wiped, then the containers end."""
        self._refusal = self._refusal or refusal
        if self._keeper is not None:
            self._keeper.wipe()
        self._end.set()

    def _go_on(self) -> None:
        if self._end.is_set():
            raise Interrupted("stopped before it ran")

    def _happened(self, name: str, event: str, code: int | None) -> None:
        self._control.container(name, event, code)

    def _heard(self, name: str, stream: str, data: bytes) -> None:
        for start in range(0, len(data), _LOG_PART):
            self._control.log(name, stream, b64(data[start : start + _LOG_PART]))

    def _signal(self, name: str, signal: str) -> None:
        import signal as signals

        _quietly(lambda: self.supervisor.signal(name, signals.Signals[signal]))


def _crun(run: Path) -> Runtime:
    from casemate.drivers.crun import Crun

    return Crun(run / "crun")


def _quietly(call: Callable[[], None]) -> None:
    """What must not stop the rest: a container that just ended can't be signalled, a busy mount stays."""
    try:
        call()
    except CasemateError:
        return
