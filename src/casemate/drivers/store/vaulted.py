"""Resources with their versions, and volumes. The bytes arrive sealed (`broker/vault.py`); nothing here opens them."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, bindparam, delete, exists, insert, or_, select, update

from casemate.drivers.store import tables as t
from casemate.drivers.store.prepared import Prepared
from casemate.drivers.store.registry import millis


class Owned(NamedTuple):
    """Who owns a path, and its newest version; `doomed` is when it will be purged (milliseconds): it is closed now."""

    app_id: str
    newest: int
    deleted: bool
    doomed: int | None = None

    @property
    def open(self) -> bool:
        """Whether there is anything to read."""
        return not self.deleted and self.doomed is None


class Version(NamedTuple):
    """A sealed version of a resource."""

    version: int
    sealed: bytes


class Volume(NamedTuple):
    """The broker's record of a volume. `grant_digest` is the hex SHA-256 of the newest format grant.

    `key_path` and `key_version` name the version of the key that the volume is made with, 0 for a derived key; a volume
    of an older store says None.
    """

    size: int
    grant_digest: str | None
    initialised: bool
    record: dict[str, Any] | None
    key_path: str | None = None
    key_version: int | None = None


# Made once: they are asked at every request, and making a statement takes longer than asking it.
_R, _V = t.resources.c, t.resource_versions.c
_OWNER = select(_R.app_id, _R.newest, _R.deleted, _R.doomed).where(_R.path == bindparam("p"))
_NEWEST = (
    select(_V.version, _V.sealed)
    .select_from(t.resource_versions.join(t.resources, and_(_V.path == _R.path, _V.version == _R.newest)))
    .where(_R.path == bindparam("p"), _R.deleted.is_(False), _R.doomed.is_(None))
)
_ASK_OWNER, _ASK_NEWEST = Prepared(_OWNER), Prepared(_NEWEST)


def owner(tx: Connection, path: str) -> Owned | None:
    """Who owns `path` (``repo/type/tag``), or None when nobody ever stored anything there."""
    row = _ASK_OWNER.one(tx, p=path)
    return None if row is None else Owned(row[0], row[1], bool(row[2]), row[3])


def _locked(tx: Connection, path: str) -> Owned | None:
    row = tx.execute(_OWNER.with_for_update(), {"p": path}).one_or_none()
    return None if row is None else Owned(row.app_id, row.newest, row.deleted, row.doomed)


def newest(tx: Connection, path: str) -> Version | None:
    """The newest version of a resource, or None when it is missing, deleted or about to be."""
    row = _ASK_NEWEST.one(tx, p=path)
    return None if row is None else Version(row[0], bytes(row[1]))


def version(tx: Connection, path: str, number: int, now: datetime) -> Version | None:
    """A version that opens: the newest, or one that was replaced and whose time is not over."""
    c, owned = t.resource_versions.c, owner(tx, path)
    if owned is None or not owned.open:
        return None
    ends = tx.execute(select(c.ends).where(c.path == path, c.version == number)).scalar_one_or_none()
    timely = ends is not None and ends > millis(now)
    return kept(tx, path, number) if timely or number == owned.newest else None


def kept(tx: Connection, path: str, number: int) -> Version | None:
    """A version as long as it is there at all; for volumes, whose key must not end before them."""
    c = t.resource_versions.c
    row = tx.execute(select(c.version, c.sealed).where(c.path == path, c.version == number)).one_or_none()
    return None if row is None else Version(row.version, bytes(row.sealed))


def versions(tx: Connection, path: str) -> list[Any]:
    """(version, created, ends, name of a volume that is made with it) of a resource, newest first; times in ms."""
    c, v = t.resource_versions.c, t.volumes.c
    holds = select(v.name).where(v.key_path == path, v.key_version == c.version).limit(1).scalar_subquery()
    query = select(c.version, c.created, c.ends, holds.label("volume")).where(c.path == path)
    return list(tx.execute(query.order_by(c.version.desc())))


def claim(tx: Connection, app_id: str, path: str) -> Owned:
    """Give an unowned path to `app_id`; returns the owner, which may be another app, before the new version.

    The path stays locked until the transaction ends, so that writers of one path number their versions in turn.
    """
    found = _locked(tx, path)
    if found is None:
        tx.execute(insert(t.resources).values(path=path, app_id=app_id, newest=0, deleted=True))
        return Owned(app_id, 0, deleted=True)
    return found


def add_version(tx: Connection, path: str, version: Version, now: datetime, *, ends: datetime | None = None) -> None:
    """Store the next version of a claimed path; the one that it replaces opens until `ends`, or no longer."""
    c = t.resource_versions.c
    replaced = and_(c.path == path, c.version == version.version - 1)
    tx.execute(update(t.resource_versions).where(replaced).values(ends=millis(ends or now)))
    tx.execute(
        insert(t.resource_versions).values(
            path=path, version=version.version, sealed=version.sealed, created=millis(now), ends=None
        )
    )
    changed = {"newest": version.version, "deleted": False, "doomed": None}
    tx.execute(update(t.resources).where(t.resources.c.path == path).values(**changed))


def doom(tx: Connection, path: str, at: datetime | None) -> bool:
    """Close a resource until it is purged at `at`, or (None) open it again; False when that changes nothing."""
    c = t.resources.c
    wanted = c.doomed.is_not(None) if at is None else c.doomed.is_(None)
    chosen = update(t.resources).where(c.path == path, c.deleted.is_(False), wanted)
    return tx.execute(chosen.values(doomed=None if at is None else millis(at))).rowcount == 1


def due(tx: Connection, now: datetime) -> list[str]:
    """Resources whose purge is due."""
    c = t.resources.c
    return list(tx.execute(select(c.path).where(c.doomed <= millis(now), c.deleted.is_(False))).scalars())


def outdated(now: datetime) -> Any:
    """Which versions nobody can read any more: replaced, their time over, and no volume is made with them."""
    c, r, v = t.resource_versions.c, t.resources.c, t.volumes.c
    replaced = exists().where(r.path == c.path, r.newest != c.version)
    holding = exists().where(v.key_path == c.path, v.key_version == c.version)
    return and_(or_(c.ends.is_(None), c.ends <= millis(now)), replaced, ~holding)


def purge_versions(tx: Connection, now: datetime) -> int:
    """Delete outdated versions; how many."""
    return tx.execute(delete(t.resource_versions).where(outdated(now))).rowcount


def any_outdated(tx: Connection, now: datetime) -> bool:
    """Whether `purge_versions` would find something."""
    return tx.execute(select(t.resource_versions.c.version).where(outdated(now)).limit(1)).first() is not None


def remove(tx: Connection, path: str) -> bool:
    """Delete every version, keep the owner and the count; False when there was nothing."""
    owned = owner(tx, path)
    if owned is None or owned.deleted:
        return False
    tx.execute(t.resource_versions.delete().where(t.resource_versions.c.path == path))
    tx.execute(update(t.resources).where(t.resources.c.path == path).values(deleted=True, doomed=None))
    return True


def listing(tx: Connection, app_id: str) -> list[Any]:
    """(path, newest version, when it will be purged) of an app's resources that are not deleted."""
    c = t.resources.c
    query = select(c.path, c.newest, c.doomed).where(c.app_id == app_id, c.deleted.is_(False)).order_by(c.path)
    return list(tx.execute(query))


def volume(tx: Connection, app_id: str, name: str) -> Volume | None:
    """The record of a volume, or None."""
    c = t.volumes.c
    row = tx.execute(select(t.volumes).where(c.app_id == app_id, c.name == name)).one_or_none()
    if row is None:
        return None
    told = json.loads(row.record) if row.record else None
    return Volume(row.size, row.grant_digest, row.initialised, told, row.key_path, row.key_version)


def put_volume(tx: Connection, app_id: str, name: str, value: Volume, now: datetime) -> None:
    """Write the record of a volume."""
    c = t.volumes.c
    values = {
        "size": value.size,
        "grant_digest": value.grant_digest,
        "initialised": value.initialised,
        "record": json.dumps(value.record) if value.record is not None else None,
        "changed": millis(now),
        "key_path": value.key_path,
        "key_version": value.key_version,
    }
    if tx.execute(update(t.volumes).where(c.app_id == app_id, c.name == name).values(**values)).rowcount == 0:
        tx.execute(insert(t.volumes).values(app_id=app_id, name=name, **values))
