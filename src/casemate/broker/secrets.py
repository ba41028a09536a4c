"""What admins do with secrets: store the next version, look at versions, delete at once or later, take that back.

Rules
1. A version that was replaced opens for the window that replaced it, then it is purged; one that a volume was made with
   stays as long as its secret.
2. A secret that is to be deleted is closed at once, and can be had back until its time comes, by this broker's clock.
3. Each act is an entry of the log, in the transaction of the act.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from casemate.broker import derived, journal, resources
from casemate.broker.refusals import Conflicting, Missing
from casemate.crypto import pins
from casemate.drivers.store import leases as stored
from casemate.drivers.store import registry, vaulted
from casemate.errors import Malformed

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from casemate.broker.assemble import Broker

LONGEST = 90 * 86400


def put(broker: Broker, app_id: str, path: str, value: bytes, *, who: str, window: int | None = None) -> int:
    """Store the next version for the app that owns, or from now on owns, the path; returns the version.

    The version before it opens for another `window` seconds, by default the settings' `rotation_seconds`.
    """
    grace = None if window is None else timedelta(seconds=_seconds(window))

    def act(tx: Connection) -> int:
        if not pins.is_digest(app_id) or registry.statement(tx, app_id) is None:
            raise Missing(f"no app {app_id[:80]}", hint="casemate app list")
        version = resources.put_in(tx, broker, app_id, path, value, window=grace)
        _log(broker, tx, who, "resource.put", app=app_id, resource=path, version=version)
        return version

    return broker.store.written(act)


def delete(broker: Broker, path: str, *, who: str) -> None:
    """Delete every version now; the path stays with its app."""

    def act(tx: Connection) -> None:
        owned = vaulted.owner(tx, path)
        if owned is None or not vaulted.remove(tx, path):
            raise Missing(f"no resource {path}")
        _log(broker, tx, who, "resource.delete", app=owned.app_id, resource=path)

    broker.store.written(act)


def schedule(broker: Broker, path: str, seconds: int | None, *, who: str) -> str:
    """Close a secret, and delete it in `seconds` (default: the settings'); returns when (RFC 3339)."""
    grace = broker.settings.deletion_seconds if seconds is None else _seconds(seconds)

    def act(tx: Connection) -> str:
        at = broker.clock() + timedelta(seconds=grace)
        app_id = _owner(tx, path)
        if not vaulted.doom(tx, path, at):
            raise Conflicting.because(
                "resource.doomed",
                expected="a secret that is not to be deleted",
                found=f"{path}: to be deleted",
                hint="casemate secret undelete takes it back",
            )
        when = registry.rfc3339(registry.millis(at))
        _log(broker, tx, who, "resource.schedule", app=app_id, resource=path, purged=when)
        return when

    return broker.store.written(act)


def undelete(broker: Broker, path: str, *, who: str) -> None:
    """Take a scheduled deletion back; `Missing` when there is none, or its time is over."""

    def act(tx: Connection) -> None:
        app_id = _owner(tx, path)
        owned = vaulted.owner(tx, path)
        if owned is None or owned.doomed is None or owned.doomed <= registry.millis(broker.clock()):
            raise Missing(f"resource {path} is not waiting to be deleted", hint="casemate secret versions shows it")
        vaulted.doom(tx, path, None)
        _log(broker, tx, who, "resource.undelete", app=app_id, resource=path)

    broker.store.written(act)


def versions(broker: Broker, path: str) -> dict[str, Any]:
    """The versions of a secret, and until when each opens; never their content."""
    now = registry.millis(broker.clock())
    with broker.store.read() as tx:
        owned = vaulted.owner(tx, path)
        found = vaulted.versions(tx, path)
    if owned is None or owned.deleted:
        raise Missing(f"no resource {path}")
    told = []
    for row in found:
        newest = row.version == owned.newest
        state = "newest" if newest else "opens" if row.ends is not None and row.ends > now else "closed"
        told.append(
            {
                "version": row.version,
                "state": state if owned.doomed is None else "closed",
                "created": registry.rfc3339(row.created),
                "opens_until": registry.rfc3339(row.ends) if row.ends is not None and not newest else None,
                "volume": row.volume,
            }
        )
    purged = registry.rfc3339(owned.doomed) if owned.doomed is not None else None
    return {"resource": f"kbs:///{path}", "app_id": owned.app_id, "purged": purged, "versions": told}


def app_of(broker: Broker, path: str) -> str:
    """The app that owns a path; `Missing` when nobody does."""
    with broker.store.read() as tx:
        return _owner(tx, path)


def sweep(broker: Broker) -> None:
    """Purge what is due by this broker's clock: secrets to be deleted, versions that ended, leases of yesterday.

    Reading judges the time by itself; this takes the bytes away. Nothing due, nothing is written.
    """
    now = broker.clock()
    with broker.store.read() as tx:
        if not (vaulted.due(tx, now) or vaulted.any_outdated(tx, now) or stored.any_old(tx, now)):
            return

    def act(tx: Connection) -> None:
        stored.forget(tx, now)
        vaulted.purge_versions(tx, now)
        for path in vaulted.due(tx, now):
            app_id = _owner(tx, path)
            vaulted.remove(tx, path)
            _log(broker, tx, "broker", "resource.purge", app=app_id, resource=path)

    broker.store.written(act)


def _owner(tx: Connection, path: str) -> str:
    owned = vaulted.owner(tx, path)
    if owned is None or owned.deleted or derived.is_derived(path):
        raise Missing(f"no resource {path}")
    return owned.app_id


def _seconds(value: int) -> int:
    if not 0 <= value <= LONGEST:
        raise Malformed(f"seconds: 0 to {LONGEST} (90 days)")
    return value


def _log(broker: Broker, tx: Connection, who: str, act: str, **facts: Any) -> None:
    journal.admin(broker, tx, who=who, act=act, facts=facts)
