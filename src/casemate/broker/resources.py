"""Resources: secrets at `repo/type/tag`, each owned by one app, versioned, encrypted at rest, released to guests."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from casemate.broker.refusals import Conflicting, Missing
from casemate.broker.sessions import Session
from casemate.crypto import pins, recipient
from casemate.drivers.store import registry, vaulted
from casemate.errors import Finding, Malformed, Refused
from casemate.policy import appraise
from casemate.schema import manifest as manifests
from casemate.schema.app import AppStatement
from casemate.schema.manifest import Manifest

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from casemate.broker.assemble import Broker

_PATH = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*){2}")
MAX_PATH = 512
MAX_VALUE = 2 << 20  # a guest takes an answer of at most 4 MiB, and base64 and JWE make a value longer by a third


@dataclass(frozen=True)
class Grant:
    """A resource's version and its content as a JWE; `sealed` is None when the guest has this version already."""

    version: int
    sealed: dict[str, str] | None
    receipt: str = ""


def path_of(repo: str, kind: str, tag: str) -> str:
    """`repo/type/tag`, in the protocol's characters."""
    path = f"{repo}/{kind}/{tag}"
    if len(path) > MAX_PATH or not _PATH.fullmatch(path):
        raise Malformed("resource path: repo/type/tag of letters, digits, `_`, `-` and `.` is wanted")
    return path


def judge(broker: Broker, session: Session, path: str) -> tuple[Finding, ...]:
    """Whether this guest may read `path` now: release still active, listed in its manifest, owned by its app."""
    with broker.store.read() as tx:
        statement, manifest = running(tx, session)
        owned = vaulted.owner(tx, path)
    return (
        *still(session, statement, manifest),
        _listed(manifest, path),
        owner(owned.app_id if owned else None, session.app_id),
    )


def running(tx: Connection, session: Session) -> tuple[AppStatement | None, Manifest | None]:
    """The app and the manifest that the session's guest runs, as they are recorded now."""
    if session.app_id is None or session.manifest_digest is None:
        return None, None
    raw = registry.manifest(tx, session.app_id, session.manifest_digest)
    return registry.statement(tx, session.app_id), manifests.parse(raw) if raw is not None else None


def still(session: Session, statement: AppStatement | None, manifest: Manifest | None) -> tuple[Finding, ...]:
    """What was true at attestation and must be true still: an active release, on an allowed platform."""
    if session.manifest_digest is None:
        hint = 'put the manifest into initdata as "casemate.json"'
        return (Finding("manifest.present", "a manifest in the attested initdata", "none", hint),)
    allowed = statement.platforms if statement else ()
    return (
        appraise.release(session.manifest_digest if manifest else "", statement),
        Finding(
            "platform.class",
            " or ".join(allowed) or "none",
            session.platform_class,
            "" if session.platform_class in allowed else "the app's owner allows other platforms now",
            ok=session.platform_class in allowed,
        ),
    )


def owner(found: str | None, wanted: str | None) -> Finding:
    """`resource.owner`; that a path is another app's and that it is nobody's look alike from outside."""
    ok = found is not None and found == wanted
    hint = "" if ok else "store it for this app (casemate secret set); a path that another app owns gives nothing"
    return Finding("resource.owner", wanted or "an app", "this app" if ok else "another app or nobody", hint, ok=ok)


def seal(broker: Broker, session: Session, path: str, known: int | None) -> Grant:
    """The newest version for this guest's key; `Missing` when it was deleted."""
    with broker.store.read() as tx:
        found = vaulted.newest(tx, path)
    if found is None:
        raise Missing(f"resource {path} was deleted", hint="casemate secret set stores a new version")
    if found.version == known:
        return Grant(found.version, None)
    return Grant(
        found.version, recipient.seal(broker.vault.open(label(path, found.version), found.sealed), session.tee_pubkey)
    )


def refuse(findings: tuple[Finding, ...]) -> NoReturn:
    """The refusal with every failed rule."""
    raise Refused([f for f in findings if not f.ok])


def put(broker: Broker, app_id: str, path: str, value: bytes) -> int:
    """Store the next version for the app that owns, or from now on owns, the path; returns the version."""

    def act(tx: Connection) -> int:
        if not pins.is_digest(app_id) or registry.statement(tx, app_id) is None:
            raise Missing(f"no app {app_id[:80]}", hint="casemate app list")
        return put_in(tx, broker, app_id, path, value)

    return broker.store.written(act)


def put_in(tx: Connection, broker: Broker, app_id: str, path: str, value: bytes) -> int:
    """`put` inside a transaction."""
    owned = vaulted.claim(tx, app_id, path)
    if owned.app_id != app_id:
        raise Conflicting.because(
            "resource.owner",
            expected="a path that is this app's or nobody's",
            found=f"{path}: another app's",
            hint="choose another path",
        )
    version = owned.newest + 1
    vaulted.add_version(
        tx, path, vaulted.Version(version, broker.vault.seal(label(path, version), value)), broker.clock()
    )
    return version


def delete(broker: Broker, path: str) -> None:
    """Delete every version; the path stays with its app."""
    with broker.store.write() as tx:
        if not vaulted.remove(tx, path):
            raise Missing(f"no resource {path}")


def label(path: str, version: int) -> str:
    """What a sealed version is bound to at rest."""
    return f"resource:{path}:{version}"


def _listed(manifest: Manifest | None, path: str) -> Finding:
    ok = manifest is not None and f"kbs:///{path}" in manifest.resources()
    hint = "" if ok else "only what the attested manifest lists is released to it"
    return Finding("resource.listed", f"kbs:///{path} in the manifest", "listed" if ok else "not listed", hint, ok=ok)
