"""Writing manifests: from an image or from a compose file, with every tag resolved to a digest.

What an image or a compose file can't say (app, brokers, signers) comes in as `Trust`. The result was parsed as a
manifest before it is handed out, so what `casemate manifest from` prints is what `casemate manifest check` accepts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from casemate.errors import Malformed, Problem, Unusable
from casemate.host import compose
from casemate.image import reference as references
from casemate.schema import manifest as manifests
from casemate.schema import yaml_reader
from casemate.schema.manifest import Manifest
from casemate.wire import jcs

_UNSET_USER = {"", "0", "root", "0:0", "root:root"}


class Resolved(NamedTuple):
    """What the registry says of a name: manifest digest, the config's `config` object, ids of keys that open layers."""

    digest: str
    config: dict[str, Any]
    keys: tuple[str, ...] = ()


Resolve = Callable[[references.Reference], Resolved]


class Trust(NamedTuple):
    """What the author adds: owner app, brokers (url, key), signer's PEM key, registry table (all as plain data)."""

    app: str
    brokers: list[dict[str, Any]]
    signer: str
    registries: list[dict[str, Any]]


def local_trust(context: Path, app: str, signer: str, brokers: Iterable[str] = ()) -> Trust:
    """Trust from `url=pin` texts, or from the local trust domain's context.json where none are given."""
    known = jcs.parse_object(context.read_bytes(), "context.json") if context.exists() else {}
    listed = [dict(zip(("url", "key"), text.rsplit("=", 1), strict=False)) for text in brokers]
    if not listed and not known:
        hint = "give --broker URL=PIN, or start a local one with `casemate up`"
        raise Unusable("no broker is known", hint=hint)
    if not listed:
        listed = [{"url": known["broker"]["guest_url"], "key": known["broker"]["pin"]}]
    registry = known.get("registry", {})
    moved = {"prefix": registry["host"], "location": registry["guest_host"], "insecure": True} if registry else None
    return Trust(app, listed, signer, [moved] if moved else [])


def resolver(trust: Trust, plain_http: bool) -> Resolve:
    """A `Resolve` that asks the image's registry; plain HTTP only if asked, or for the local trust domain's."""
    open_hosts = {entry["prefix"] for entry in trust.registries if entry.get("insecure")}

    def resolve(reference: references.Reference) -> Resolved:
        from casemate.drivers.registry import Registry
        from casemate.image import manifest as oci
        from casemate.image import ocicrypt, packets

        insecure = plain_http or reference.registry in open_hosts
        with Registry(reference.registry, insecure=insecure) as registry:
            fetched = registry.manifest(reference.repository, reference.target)
            document = oci.parse(fetched.body)
            if isinstance(document, oci.Index):
                fetched = registry.manifest(reference.repository, oci.choose(document).digest)
            image = oci.parse_image(fetched.body)
            config = oci.parse_config(registry.small(reference.repository, image.config, limit=oci.MAX_CONFIG))
        wrapped = [packet for layer in image.layers for packet in ocicrypt.packets(layer)]
        keys = sorted({packets.parse(packet).kid for packet in wrapped})
        return Resolved(fetched.digest, msgspec.to_builtins(config.process), tuple(keys))

    return resolve


def from_image(image: str, name: str, trust: Trust, resolve: Resolve) -> tuple[Manifest, list[str]]:
    """A manifest for one image, and notes on what its author should look at."""
    reference = references.parse(image)
    resolved = resolve(reference)
    container: dict[str, Any] = {"name": name or _label(reference.repository), "image": _pinned(reference, resolved)}
    if resolved.keys:
        container["image_keys"] = list(resolved.keys)
    ports = [_port(text) for text in sorted(resolved.config.get("ExposedPorts") or {})]
    if ports:
        container["ports"] = ports
    if resolved.config.get("StopSignal"):
        container["stop_signal"] = resolved.config["StopSignal"]
    notes = [f"the image keeps data in {path}; add a volume" for path in sorted(resolved.config.get("Volumes") or {})]
    if str(resolved.config.get("User") or "") in _UNSET_USER:
        notes.append("the image runs as root in its container; set user where it can do without")
    return _manifest(container["name"], [container], [], trust), notes


def from_compose(text: bytes, name: str, trust: Trust, resolve: Resolve) -> tuple[Manifest, list[str]]:
    """A manifest for a compose file, and what the launch and the broker must be told besides."""
    document, lines = yaml_reader.load(text)

    keys: dict[str, tuple[str, ...]] = {}

    def pin(image: str) -> str:
        reference = references.parse(image)
        resolved = resolve(reference)
        name = _pinned(reference, resolved)
        keys[name] = resolved.keys
        return name

    made = compose.convert(document, lines, pin)
    for container in made.containers:
        if keys[container["image"]]:
            container["image_keys"] = list(keys[container["image"]])
    volumes = [
        {"name": volume, "app": trust.app, "key": f"kbs:///{made.name}/volume/{volume}"} for volume in made.volumes
    ]
    return _manifest(name or made.name, made.containers, volumes, trust), made.notes


def advice(manifest: Manifest) -> tuple[Problem, ...]:
    """What is wrong with a manifest that only other rooms can tell: an image that no signer may sign."""
    found = []
    for i, container in enumerate(manifest.containers):
        name = references.parse(container.image, pinned=True).name
        if not any(references.matches(pattern, name) for signer in manifest.signers for pattern in signer.images):
            hint = "add the repository to a signer's images (* stands for text within one path segment)"
            found.append(Problem(f"containers[{i}].image", f"no signer may sign {name}", hint))
    return tuple(found)


def read(text: bytes, *, json: bool = False) -> Manifest:
    """The manifest in YAML (or JSON) text, with line numbers in its problems."""
    if json:
        return manifests.parse(text)
    document, lines = yaml_reader.load(text)
    return manifests.from_builtins(document, lines)


def to_yaml(manifest: Manifest, notes: list[str]) -> str:
    """The manifest as YAML in the order of its fields, notes on top as comments."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Long texts such as PEM keys are written as blocks."""

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        quoted = "'" if yaml_reader.plain(value) is not value else None  # the writer knows YAML 1.1 only
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else quoted)

    Dumper.add_representer(str, text)
    body = yaml.dump(msgspec.to_builtins(manifest), Dumper=Dumper, sort_keys=False, allow_unicode=True, width=4096)
    return "".join(f"# {' '.join(note.split())}\n" for note in notes) + body


def _manifest(name: str, containers: list[dict[str, Any]], volumes: list[dict[str, Any]], trust: Trust) -> Manifest:
    images = sorted({container["image"].partition("@")[0] for container in containers})
    document: dict[str, Any] = {
        "apiVersion": manifests.API_VERSION,
        "name": name,
        "app": trust.app,
        "brokers": trust.brokers,
        "signers": [{"key": trust.signer, "images": images}],
        "registries": [r for r in trust.registries if any(i.startswith(f"{r['prefix']}/") for i in images)],
        "containers": containers,
        "volumes": volumes,
    }
    return manifests.from_builtins(document)


def _pinned(reference: references.Reference, resolved: Resolved) -> str:
    """The name by digest alone. Of an index the manifest for this architecture counts: that is what will run."""
    return f"{reference.name}@{resolved.digest}"


def _port(text: str) -> dict[str, Any]:
    number, _, protocol = text.partition("/")
    if not number.isdigit():
        raise Malformed(f"image config: {text[:32]!r} is not a port")
    return {"container": int(number), "protocol": protocol or "tcp"}


def _label(repository: str) -> str:
    """A container name out of the last part of a repository."""
    return "".join(c if c.isalnum() else "-" for c in repository.rsplit("/", 1)[-1])[:63].strip("-")
