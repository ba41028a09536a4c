"""Resources: secrets at `repo/type/tag`, each owned by one app, versioned, encrypted at rest, released to guests."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, NoReturn

from casemate.broker import access, derived, leases
from casemate.broker.refusals import Conflicting, Missing, Unauthenticated
from casemate.broker.sessions import Session
from casemate.crypto import recipient
from casemate.drivers.store import accounts, registry, vaulted
from casemate.errors import Finding, Malformed, Refused
from casemate.policy import appraise
from casemate.schema import manifest as manifests
from casemate.schema.app import AppStatement
from casemate.schema.manifest import Manifest

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from casemate.broker.assemble import Broker
    from casemate.drivers.store.known import View

_PATH = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*){2}")
MAX_PATH = 512
STILL = ("manifest.present", "release.active", "platform.class")  # what no attestation of this guest can mend
MAX_VALUE = 2 << 20  # a guest takes an answer of at most 4 MiB, and base64 and JWE make a value longer by a third


@dataclass(frozen=True)
class Grant:
    """A resource's version and its content as a JWE; `sealed` is None when the guest has this version already.

    `lease` is how many seconds the guest may keep it.
    """

    version: int
    sealed: dict[str, str] | None
    receipt: str = ""
    lease: int = 0


def path_of(repo: str, kind: str, tag: str) -> str:
    """`repo/type/tag`, in the protocol's characters."""
    path = f"{repo}/{kind}/{tag}"
    if len(path) > MAX_PATH or not _PATH.fullmatch(path):
        raise Malformed("resource path: repo/type/tag of letters, digits, `_`, `-` and `.` is wanted")
    return path


def judge(  # noqa: PLR0917 - what a transaction has read already
    broker: Broker, tx: Connection, known: View, session: Session, path: str, owned: vaulted.Owned | None
) -> tuple[Finding, ...]:
    """Whether this guest may read `path` now: release still active, listed in its manifest, owned by its app."""
    statement, manifest, listed = known.get(
        ("running", session.app_id, session.manifest_digest), lambda: _running(tx, session)
    )
    lease = leases.judge(tx, session, broker.clock())
    told = (*still(session, statement, manifest), _listed(listed, path))
    if not derived.is_derived(path):
        return (*told, owner(owned.app_id if owned else None, session.app_id), *lease)
    tenant = statement.founding.tenant if statement else None
    return (*told, owner(session.app_id, session.app_id), access.in_repo(broker, path, tenant), *lease)


def running(tx: Connection, session: Session) -> tuple[AppStatement | None, Manifest | None]:
    """The app and the manifest that the session's guest runs, as they are recorded now."""
    if session.app_id is None or session.manifest_digest is None:
        return None, None
    raw = registry.manifest(tx, session.app_id, session.manifest_digest)
    return registry.statement(tx, session.app_id), manifests.parse(raw) if raw is not None else None


def _running(tx: Connection, session: Session) -> tuple[AppStatement | None, Manifest | None, frozenset[str]]:
    """`running`, and every resource that the manifest lists."""
    statement, manifest = running(tx, session)
    return statement, manifest, manifest.resources() if manifest is not None else frozenset()


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


@dataclass(frozen=True)
class Held:
    """What the store holds at a path: the version that was asked for, sealed, or who owns the path where none opens."""

    wanted: int | None
    found: vaulted.Version | None = None
    owned: vaulted.Owned | None = None


def held(broker: Broker, tx: Connection, path: str, version: int | None = None) -> Held:
    """What `seal` opens, read in a transaction; by default the newest version."""
    if derived.is_derived(path):
        return Held(version)
    found = vaulted.newest(tx, path) if version is None else vaulted.version(tx, path, version, broker.clock())
    return Held(version, found, vaulted.owner(tx, path) if found is None else None)


def seal(broker: Broker, session: Session, path: str, known: int | None, held: Held) -> Grant:
    """What is held, for this guest's key; `Missing` when it doesn't open (any more)."""
    left, found = leases.left(session, broker.clock()), held.found
    if derived.is_derived(path):
        if held.wanted not in (None, derived.VERSION):
            raise Missing(f"resource {path} is derived and has one version", hint="take another tag for another key")
        value = None if known == derived.VERSION else broker.deriver.key(session.app_id or "", path, derived.RESOURCE)
        return Grant(derived.VERSION, recipient.seal(value, session.tee_pubkey) if value else None, lease=left)
    if found is None:
        raise _gone(path, held.owned, held.wanted)
    if found.version == known:
        return Grant(found.version, None, lease=left)
    value = broker.vault.open(label(path, found.version), found.sealed)
    return Grant(found.version, recipient.seal(value, session.tee_pubkey), lease=left)


def _gone(path: str, owned: vaulted.Owned | None, version: int | None) -> Missing:
    if owned is not None and owned.doomed is not None:
        return Missing(f"resource {path} is to be deleted", hint="casemate secret undelete takes that back")
    if owned is not None and owned.open and version is not None:
        return Missing(f"resource {path} has no version {version} that opens", hint="ask for the newest version")
    return Missing(f"resource {path} was deleted", hint="casemate secret set stores a new version")


def refuse(findings: tuple[Finding, ...]) -> NoReturn:
    """The refusal with every failed rule. Where attesting again may give a lease that is missing, that is a 401."""
    failed = [f for f in findings if not f.ok]
    over = [f for f in failed if f.rule == leases.RULE]
    if over and not any(f.rule in STILL for f in failed):
        raise Unauthenticated(over)
    raise Refused([f for f in failed if f not in over])  # what ended a lease says more than that it ended


def put_in(
    tx: Connection, broker: Broker, app_id: str, path: str, value: bytes, *, window: timedelta | None = None
) -> int:
    """Store the next version inside a transaction; the one that it replaces opens for another `window`."""
    if derived.is_derived(path):
        raise Conflicting.because(
            "resource.derived",
            expected="a path for stored secrets",
            found=f"{path}: kept for derived keys",
            hint="choose a type that does not begin with `derived.`",
        )
    access.demand_repo(broker, path, accounts.tenant_of(tx, app_id))
    owned = vaulted.claim(tx, app_id, path)
    if owned.app_id != app_id:
        raise Conflicting.because(
            "resource.owner",
            expected="a path that is this app's or nobody's",
            found=f"{path}: another app's",
            hint="choose another path",
        )
    if owned.doomed is not None:
        raise Conflicting.because(
            "resource.doomed",
            expected="a secret that is not to be deleted",
            found=f"{path}: to be deleted",
            hint="casemate secret undelete first",
        )
    version, now = owned.newest + 1, broker.clock()
    grace = timedelta(seconds=broker.settings.rotation_seconds) if window is None else window
    sealed = broker.vault.seal(label(path, version), value)
    vaulted.add_version(tx, path, vaulted.Version(version, sealed), now, ends=now + grace)
    return version


def label(path: str, version: int) -> str:
    """What a sealed version is bound to at rest."""
    return f"resource:{path}:{version}"


def _listed(listed: frozenset[str], path: str) -> Finding:
    ok = f"kbs:///{path}" in listed
    hint = "" if ok else "only what the attested manifest lists is released to it"
    return Finding("resource.listed", f"kbs:///{path} in the manifest", "listed" if ok else "not listed", hint, ok=ok)
