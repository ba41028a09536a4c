"""The manifest: one document that says everything a workload may be, and nothing it does not list may happen.

Rules: unknown fields are errors; images are named by digest; paths are absolute; names are unique; every secret goes to
an env variable or a file; every volume names the app that owns it; the host may do nothing that `host` does not list.
Its identity is SHA-256 over its RFC 8785 JSON, never over file bytes.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from casemate.crypto import pins
from casemate.errors import Malformed
from casemate.wire import jcs

API_VERSION = "casemate/v1"
MAX_BYTES = 1 << 20

Name = Annotated[str, Meta(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", description="DNS label")]
Digest = Annotated[str, Meta(pattern=r"^sha256:[0-9a-f]{64}$")]
AbsolutePath = Annotated[str, Meta(pattern=r"^/[^\x00]*$", max_length=1024)]
Resource = Annotated[str, Meta(pattern=r"^kbs:///[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*){2}$")]
ImageReference = Annotated[str, Meta(max_length=512, description="registry/repository@sha256:…, always by digest")]
EnvName = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=256)]
Port = Annotated[int, Meta(ge=1, le=65535)]
Mode = Annotated[str, Meta(pattern=r"^0?[0-7]{3}$", description="octal permission bits")]
Signal = Annotated[str, Meta(pattern=r"^SIG[A-Z0-9]{2,12}$")]


class Paper(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of every part of the manifest: frozen, strict, defaults left out of the canonical form."""


class Broker(Paper, frozen=True, kw_only=True):
    """A key service: its base URL and the pin of its TLS key (`casemate.crypto.pins`)."""

    url: Annotated[str, Meta(pattern=r"^https://[^\s/?#]+(:[0-9]+)?$", max_length=512)]
    key: Digest


class Signer(Paper, frozen=True, kw_only=True):
    """Who may sign which images: a PEM public key and repository patterns (`*` matches within one path segment)."""

    key: Annotated[str, Meta(max_length=4096)]
    images: tuple[Annotated[str, Meta(min_length=1, max_length=512)], ...]


class Registry(Paper, frozen=True, kw_only=True):
    """Where the guest finds images whose reference starts with `prefix` (containers-registries.conf words)."""

    prefix: Annotated[str, Meta(min_length=1, max_length=512)]
    location: Annotated[str, Meta(min_length=1, max_length=512)]
    insecure: bool = False
    credentials: Resource | None = None


class EnvVar(Paper, frozen=True, kw_only=True):
    """One plain environment variable. Secrets go through `secrets`."""

    name: EnvName
    value: Annotated[str, Meta(max_length=65536)]


class File(Paper, frozen=True, kw_only=True):
    """A plain file put into the container."""

    path: AbsolutePath
    content: Annotated[str, Meta(max_length=262144)]
    mode: Mode = "0444"


class Secret(Paper, frozen=True, kw_only=True):
    """A broker resource given to a container as an env variable or as a file (exactly one of them).

    `signal` is sent to the container's process when a new version of a file arrived; an env variable can't be updated.
    """

    resource: Resource
    env: EnvName | None = None
    file: AbsolutePath | None = None
    mode: Mode = "0400"
    signal: Signal | None = None


class Mount(Paper, frozen=True, kw_only=True):
    """A volume mounted in a container."""

    volume: Name
    path: AbsolutePath
    read_only: bool = False


class PortRule(Paper, frozen=True, kw_only=True):
    """A port of the container that may be reached from outside. `tls` says that the service's own TLS answers there."""

    container: Port
    protocol: Literal["tcp", "udp"] = "tcp"
    tls: bool = False


class Limits(Paper, frozen=True, kw_only=True):
    """Resource limits of one container (cgroup v2); None leaves the VM's own size as the bound."""

    memory_mib: Annotated[int, Meta(ge=4)] | None = None
    pids: Annotated[int, Meta(ge=1)] | None = None
    cpus: Annotated[float, Meta(gt=0)] | None = None


class Api(Paper, frozen=True, kw_only=True):
    """What a container may ask of the guest's local API; nothing unless listed."""

    resources: tuple[Resource, ...] = ()
    token: bool = False
    evidence: bool = False


class Container(Paper, frozen=True, kw_only=True):
    """One container. `command` replaces the image's entrypoint, `args` its cmd. `image_keys` open its layers."""

    name: Name
    image: ImageReference
    image_keys: tuple[Resource, ...] = ()
    command: tuple[str, ...] | None = None
    args: tuple[str, ...] | None = None
    working_dir: AbsolutePath | None = None
    env: tuple[EnvVar, ...] = ()
    files: tuple[File, ...] = ()
    secrets: tuple[Secret, ...] = ()
    user: Annotated[str, Meta(pattern=r"^[0-9]{1,10}(:[0-9]{1,10})?$", description="uid or uid:gid")] | None = None
    capabilities: tuple[Annotated[str, Meta(pattern=r"^CAP_[A-Z_]+$")], ...] = ()
    read_only_root: bool = True
    mounts: tuple[Mount, ...] = ()
    tmpfs: tuple[AbsolutePath, ...] = ()
    ports: tuple[PortRule, ...] = ()
    restart: Literal["never", "on-failure", "always"] = "never"
    limits: Limits = Limits()
    api: Api = Api()
    stop_signal: Signal = "SIGTERM"


class Volume(Paper, frozen=True, kw_only=True):
    """An encrypted volume: the app that owns it, its key, and the least size the guest accepts."""

    name: Name
    app: Digest
    key: Resource
    minimum_mib: Annotated[int, Meta(ge=16)] = 16


class Host(Paper, frozen=True, kw_only=True):
    """What the host may ask of the guest. Everything is closed unless listed here."""

    logs: bool = False
    exec: bool = False
    signals: tuple[Signal, ...] = ()


class Minimum(Paper, frozen=True, kw_only=True):
    """Least VM size; the launch decides the rest."""

    cpus: Annotated[int, Meta(ge=1)] = 1
    memory_mib: Annotated[int, Meta(ge=128)] = 256


class Manifest(Paper, frozen=True, kw_only=True):
    """The whole document. `quorum` brokers must agree; `minimum` is the least VM that the workload accepts."""

    apiVersion: Literal["casemate/v1"]  # noqa: N815 - the field's own spelling (Kubernetes)
    name: Name
    app: Digest
    brokers: Annotated[tuple[Broker, ...], Meta(min_length=1)]
    quorum: Annotated[int, Meta(ge=1)] = 1
    signers: Annotated[tuple[Signer, ...], Meta(min_length=1)]
    registries: tuple[Registry, ...] = ()
    containers: Annotated[tuple[Container, ...], Meta(min_length=1)]
    volumes: tuple[Volume, ...] = ()
    host: Host = Host()
    minimum: Minimum = Minimum()

    def canonical(self) -> bytes:
        """RFC 8785 JSON, defaults left out."""
        return jcs.canonical(msgspec.to_builtins(self))

    @property
    def digest(self) -> str:
        """The manifest's identity, `sha256:<hex>`."""
        return pins.digest(self.canonical())

    def resources(self) -> frozenset[str]:
        """Every kbs:/// URI that this manifest names, in whatever role."""
        found = {volume.key for volume in self.volumes}
        found |= {registry.credentials for registry in self.registries if registry.credentials}
        for container in self.containers:
            found |= set(container.image_keys) | set(container.api.resources)
            found |= {secret.resource for secret in container.secrets}
        return frozenset(found)


def parse(data: bytes | str) -> Manifest:
    """The manifest in `data` (JSON, at most 1 MiB); the only error is `Malformed`, with the path in the document."""
    document = jcs.parse_object(data, "manifest", limit=MAX_BYTES)
    return from_builtins(document)


def from_builtins(document: object) -> Manifest:
    """The manifest of an already parsed document (from YAML or JSON)."""
    try:
        manifest = msgspec.convert(document, Manifest)
    except msgspec.ValidationError as error:
        raise Malformed(f"manifest: {error}") from error
    return manifest
