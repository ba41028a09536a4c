"""The host's part of a local trust domain: a registry, a platform CA with prepared TPMs, and the guest image.

What a broker must be told of it comes back as papers (`anchor`, `references`); this role tells no broker anything.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from casemate.drivers import daemons, http, keyfiles, tools
from casemate.errors import CasemateError
from casemate.host import guestimage
from casemate.host.pool import Pool
from casemate.schema.endorsements import Anchor
from casemate.schema.reference import ReferenceValues
from casemate.wire import jcs

REGISTRY, PLATFORM, CONTEXT = "registry", "platform", "context.json"
GUEST_HOST = "10.0.2.2"
TPMS = 2
# Registers that bind what differs from workload to workload; they are judged through initdata.
_NOT_OF_THE_IMAGE = frozenset({"pcr8", "host_data", "mrconfigid"})


class Registry(NamedTuple):
    """A running local registry: its address here and for guests, its storage folder, its pid."""

    host: str
    guest_host: str
    storage: Path
    pid: int


class Platform(NamedTuple):
    """What vouches for this host's machines, and the guest image with the values that it will measure."""

    anchor: Anchor
    certificate: Path
    image: guestimage.GuestImage
    references: tuple[ReferenceValues, ...]


def start_registry(home: Path) -> Registry:
    """The running registry of `home`, made, started or repaired as needed; its port stays the same."""
    folder = home / REGISTRY
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    port = _port(folder)
    storage = folder / "data"
    config = {
        "version": 0.1,
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(storage)}, "delete": {"enabled": True}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    keyfiles.write(folder / "config.yml", json.dumps(config, indent=1).encode())  # JSON is YAML
    host = f"127.0.0.1:{port}"
    argv = tools.argv("docker-registry", "serve", str(folder / "config.yml"))
    running = daemons.ensure(folder, argv, lambda: answers(host), name="registry")
    return Registry(host, f"{GUEST_HOST}:{port}", storage, running.pid)


def platform(home: Path, progress: Callable[[str], None]) -> Platform:
    """The platform CA with its prepared TPMs, and the guest image, built when it is not in the cache."""
    image = guestimage.ensure(progress)
    pool = Pool(home / PLATFORM)
    progress("preparing software TPMs")
    pool.prepare(1)
    pool.refill(TPMS)
    references = tuple(
        ReferenceValues(
            name=f"guest image {image.paper.inputs[:16]}",
            tee=tee,
            values={name: value for name, value in values.items() if name not in _NOT_OF_THE_IMAGE},
        )
        for tee, values in sorted(image.paper.measurements.items())
    )
    return Platform(pool.ca.anchor, pool.ca.certificate_path, image, references)


def stop(home: Path) -> bool:
    """End the registry of `home`; False when none ran."""
    return daemons.stop(home / REGISTRY)


def remember(
    home: Path, broker: dict[str, Any], admin_key: Path, registry: Registry, platform: Platform
) -> dict[str, Any]:
    """Write context.json, from which the other commands know the domain; returns its content."""
    context = {
        "broker": broker,
        "registry": {**registry._asdict(), "storage": str(registry.storage)},
        "admin_key": str(admin_key),
        "platform_ca": str(platform.certificate),
        "guest_image": str(platform.image.folder),
    }
    keyfiles.write(home / CONTEXT, json.dumps(context, indent=2).encode() + b"\n")
    return context


def context(home: Path) -> dict[str, Any] | None:
    """What `remember` wrote, or None where no domain was started."""
    try:
        return jcs.parse_object((home / CONTEXT).read_bytes(), CONTEXT, limit=1 << 20)
    except FileNotFoundError:
        return None


def _port(folder: Path) -> int:
    """The registry's port: chosen once, then kept, because manifests and references name it."""
    return int(keyfiles.once(folder / "port", lambda: str(daemons.free_port()).encode()))


def answers(host: str) -> bool:
    """Whether a registry answers at `host`."""
    try:
        return http.request("GET", f"http://{host}/v2/", insecure=True, timeout=2).status in (200, 401)
    except CasemateError:
        return False
