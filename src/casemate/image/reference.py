"""Image references: ``registry/repository[:tag]@sha256:<hex>``, and where a reference is really fetched from.

Spec: OCI distribution-spec 1.1 (names, tags), containers-registries.conf (prefix and location). Stricter than docker
on purpose: the registry is always written out, because a name that silently means a public hub can't be judged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from casemate.crypto import pins
from casemate.errors import Malformed
from casemate.schema.manifest import Registry

MAX_LENGTH = 512
_HOST = re.compile(
    r"(?:[a-z0-9](?:[a-z0-9-]{0,62})(?:\.[a-z0-9](?:[a-z0-9-]{0,62}))*|\[[0-9a-f:.]{2,45}\])(?::[0-9]{1,5})?"
)
_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


class Reference(msgspec.Struct, frozen=True):
    """An image's name: registry (host[:port]), repository, and a tag, a digest or both."""

    registry: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    @property
    def name(self) -> str:
        """``registry/repository``: what signatures and patterns speak of."""
        return f"{self.registry}/{self.repository}"

    @property
    def target(self) -> str:
        """What a registry is asked for: the digest when there is one, else the tag."""
        return self.digest or self.tag or "latest"

    def at(self, digest: str) -> Reference:
        """The same name, pinned to `digest`."""
        return msgspec.structs.replace(self, digest=digest)

    def __str__(self) -> str:
        return self.name + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


class Location(msgspec.Struct, frozen=True):
    """Where a reference is fetched from: `insecure` means plain HTTP; `credentials` names a broker resource.

    `key` is the pin of the registry's TLS key, if the manifest has one.
    """

    registry: str
    repository: str
    insecure: bool = False
    credentials: str | None = None
    key: str | None = None


def parse(text: str, *, pinned: bool = False) -> Reference:
    """The reference in `text`; `pinned` demands a digest. The only error is `Malformed`."""
    if len(text) > MAX_LENGTH:
        raise Malformed(f"image reference: {len(text)} characters, at most {MAX_LENGTH} allowed")
    rest, at, digest = text.partition("@")
    if at and not pins.is_digest(digest):
        raise Malformed(f"image reference {text!r}: the digest is not sha256:<64 hex digits>")
    host, slash, path = rest.partition("/")
    if not slash or not _is_host(host):
        raise Malformed(
            f"image reference {text!r}: no registry host", hint="write it out, as in registry.example/team/app@sha256:…"
        )
    path, colon, tag = path.partition(":")
    if not _REPOSITORY.fullmatch(path):
        raise Malformed(f"image reference {text!r}: {path!r} is not a repository name")
    if colon and not _TAG.fullmatch(tag):
        raise Malformed(f"image reference {text!r}: {tag!r} is not a tag")
    if pinned and not at:
        raise Malformed(
            f"image reference {text!r}: a tag can be moved, a digest is wanted", hint="append @sha256:<digest>"
        )
    return Reference(host, path, tag or None, digest or None)


def matches(pattern: str, name: str) -> bool:
    """Whether ``registry/repository`` fits `pattern`, in which ``*`` stands for any text within one path segment."""
    wanted, found = pattern.split("/"), name.split("/")
    return len(wanted) == len(found) and all(map(_segment_matches, wanted, found))


def locate(reference: Reference, registries: Iterable[Registry]) -> Location:
    """Apply the manifest's registry table: the longest prefix that ends at a border of the name wins."""
    best: Registry | None = None
    for registry in registries:
        if _has_prefix(reference.name, registry.prefix) and (best is None or len(registry.prefix) > len(best.prefix)):
            best = registry
    if best is None:
        return Location(reference.registry, reference.repository)
    moved = parse(best.location.rstrip("/") + reference.name[len(best.prefix.rstrip("/")) :])
    return Location(moved.registry, moved.repository, best.insecure, best.credentials, best.key)


def _has_prefix(name: str, prefix: str) -> bool:
    prefix = prefix.rstrip("/")
    return name == prefix or name.startswith(prefix + "/")


def _is_host(host: str) -> bool:
    looks_like_one = "." in host or ":" in host or host == "localhost"
    return looks_like_one and len(host) <= 255 and _HOST.fullmatch(host) is not None


def _segment_matches(pattern: str, text: str) -> bool:
    """Glob with ``*`` alone, in one pass: no pattern, however written, takes more than linear time per part."""
    first, *rest = pattern.split("*")
    if not rest:
        return text == pattern
    if not text.startswith(first) or not text[len(first) :].endswith(rest[-1]):
        return False
    position, end = len(first), len(text) - len(rest[-1])
    for part in rest[:-1]:
        found = text.find(part, position, end)
        if found < 0:
            return False
        position = found + len(part)
    return position <= end
