"""The manifest: one document that says everything a workload may be, and nothing it does not list may happen.

Rules: unknown fields are errors; images are named by digest; paths are absolute; names are unique; every secret goes to
an env variable or a file; every volume names the app that owns it; the host may do nothing that `host` does not list.
Its identity is SHA-256 over its RFC 8785 JSON, never over file bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from casemate.crypto import pins
from casemate.errors import Malformed, Problem
from casemate.schema import sealed
from casemate.wire import jcs

API_VERSION = "casemate/v1"
MAX_BYTES = 1 << 20

STRICT_END = r"$(?!\n)"  # Python's $ also matches before a last newline; JSON Schema's does not


def _whole(pattern: str) -> str:
    """The pattern, anchored at both ends."""
    return f"^{pattern}{STRICT_END}"


_LABEL = r"[a-z0-9][a-z0-9-]{0,62}"
_HOST = rf"(localhost|{_LABEL}(\.{_LABEL})+|{_LABEL}(?=:)|\[[0-9a-f:.]{{2,45}}\])(:[0-9]{{1,5}})?"
_PATH = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
_SEGMENT = r"[A-Za-z0-9_-][A-Za-z0-9_.-]*"

Name = Annotated[str, Meta(pattern=_whole(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"), description="DNS label")]
Digest = Annotated[str, Meta(pattern=_whole(r"sha256:[0-9a-f]{64}"), description="sha256:<64 hex digits>")]
AbsolutePath = Annotated[str, Meta(pattern=_whole(r"/[^\x00-\x1f\x7f]*"), max_length=1024, description="absolute path")]
Resource = Annotated[
    str,
    Meta(
        pattern=_whole(f"kbs:///{_SEGMENT}/{_SEGMENT}/{_SEGMENT}"), max_length=512, description="kbs:///repo/type/tag"
    ),
]
ImageReference = Annotated[
    str,
    Meta(
        pattern=_whole(rf"{_HOST}(/{_PATH})+@sha256:[0-9a-f]{{64}}"),
        max_length=512,
        description="image by digest, registry/repository@sha256:<64 hex digits>",
    ),
]
RepositoryPrefix = Annotated[
    str, Meta(pattern=_whole(rf"{_HOST}(/{_PATH})*"), max_length=512, description="registry or registry/repository")
]
EnvName = Annotated[
    str, Meta(pattern=_whole(r"[A-Za-z_][A-Za-z0-9_]*"), max_length=256, description="environment variable name")
]
Port = Annotated[int, Meta(ge=1, le=65535)]
Mebibytes = Annotated[int, Meta(ge=4, le=1 << 30)]
Mode = Annotated[str, Meta(pattern=_whole(r"0?[0-7]{3}"), description="octal permission bits in quotes, '0400'")]
Signal = Annotated[str, Meta(pattern=_whole(r"SIG[A-Z0-9]{2,12}"), description="signal name, SIGHUP")]
Capability = Annotated[str, Meta(pattern=_whole(r"CAP_[A-Z_]+"), description="capability name, CAP_NET_BIND_SERVICE")]
User = Annotated[
    str, Meta(pattern=_whole(r"[0-9]{1,10}(:[0-9]{1,10})?"), description="numeric uid or uid:gid in quotes")
]
Url = Annotated[
    str,
    Meta(
        pattern=_whole(r"https://[^\s/?#@]+"), max_length=512, description="https://host or https://host:port, no path"
    ),
]


class Paper(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of every part of the manifest: frozen, strict, defaults left out of the canonical form."""


class Broker(Paper, frozen=True, kw_only=True):
    """A key service: its base URL and the pin of its TLS key (`casemate.crypto.pins`)."""

    url: Url
    key: Digest


class Signer(Paper, frozen=True, kw_only=True):
    """Who may sign which images: a PEM public key and repository patterns (`*` matches within one path segment)."""

    key: Annotated[str, Meta(max_length=4096)]
    images: Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=512)], ...], Meta(min_length=1)]


class Registry(Paper, frozen=True, kw_only=True):
    """Where the guest finds images whose reference starts with `prefix` (containers-registries.conf words).

    `key` pins the registry's TLS key (`casemate.crypto.pins`); without it the public certificate authorities decide.
    """

    prefix: RepositoryPrefix
    location: RepositoryPrefix
    insecure: bool = False
    credentials: Resource | None = None
    key: Digest | None = None


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

    memory_mib: Mebibytes | None = None
    pids: Annotated[int, Meta(ge=1, le=1 << 22)] | None = None
    cpus: Annotated[float, Meta(gt=0, le=4096)] | None = None


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
    user: User | None = None
    capabilities: tuple[Capability, ...] = ()
    read_only_root: bool = True
    mounts: tuple[Mount, ...] = ()
    tmpfs: tuple[AbsolutePath, ...] = ()
    ports: tuple[PortRule, ...] = ()
    restart: Literal["never", "on-failure", "always"] = "never"
    limits: Limits = Limits()
    api: Api = Api()
    stop_signal: Signal = "SIGTERM"

    def sealed(self) -> tuple[str, ...]:
        """CoCo's sealed secrets among plain variables and files (`casemate.schema.sealed`)."""
        given = (*(one.value for one in self.env), *(one.content for one in self.files))
        return tuple(value.strip() for value in given if value.startswith(sealed.PREFIX))


class Volume(Paper, frozen=True, kw_only=True):
    """An encrypted volume: the app that owns it, its key, and the least size the guest accepts."""

    name: Name
    app: Digest
    key: Resource
    minimum_mib: Annotated[int, Meta(ge=16, le=1 << 30)] = 16


class Host(Paper, frozen=True, kw_only=True):
    """What the host may ask of the guest. Everything is closed unless listed here."""

    logs: bool = False
    exec: bool = False
    signals: tuple[Signal, ...] = ()


class Minimum(Paper, frozen=True, kw_only=True):
    """Least VM size; the launch decides the rest."""

    cpus: Annotated[int, Meta(ge=1, le=4096)] = 1
    memory_mib: Annotated[int, Meta(ge=128, le=1 << 30)] = 256


class Manifest(Paper, frozen=True, kw_only=True):
    """The whole document. `quorum` brokers must agree; `minimum` is the least VM that the workload accepts."""

    apiVersion: Literal["casemate/v1"]  # noqa: N815 - the field's own spelling (Kubernetes)
    name: Name
    app: Digest
    brokers: Annotated[tuple[Broker, ...], Meta(min_length=1)]
    quorum: Annotated[int, Meta(ge=1, le=64)] = 1
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
            for value in container.sealed():
                said = sealed.parse(value)
                found |= {said.kid, said.name}
        return frozenset(found)


def parse(data: bytes | str) -> Manifest:
    """The manifest in `data` (JSON, at most 1 MiB); the only error is `Malformed`, with the path in the document."""
    document = jcs.parse_object(data, "manifest", limit=MAX_BYTES)
    return from_builtins(document)


def from_builtins(document: object, lines: Mapping[str, int] | None = None) -> Manifest:
    """The manifest of an already parsed document; `Malformed` lists every problem with its path and a hint.

    `lines` (path → line number) comes from a reader that knows them, such as `casemate.schema.manifest_yaml`.
    """
    from casemate.schema import manifest_rules

    problems: tuple[Problem, ...] = ()
    try:
        manifest = msgspec.convert(document, Manifest)
    except (msgspec.ValidationError, RecursionError):
        from casemate.schema import manifest_shape

        manifest, problems = manifest_shape.draft(document)
    problems = manifest_rules.judge(manifest, known=problems, lines=lines or {})
    if problems:
        listed = "".join(f"\n  {problem}" for problem in problems)
        raise Malformed(f"manifest: {len(problems)} problem{'s'[: len(problems) > 1]}{listed}", problems=problems)
    return manifest
