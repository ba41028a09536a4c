"""Resources with their versions, and volumes. The bytes arrive sealed (`broker/vault.py`); nothing here opens them."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, insert, select, update

from casemate.drivers.store import tables as t
from casemate.drivers.store.registry import millis


class Owned(NamedTuple):
    """Who owns a path, and its newest version."""

    app_id: str
    newest: int
    deleted: bool


class Version(NamedTuple):
    """A sealed version of a resource."""

    version: int
    sealed: bytes


class Volume(NamedTuple):
    """The broker's record of a volume. `grant_digest` is the hex SHA-256 of the newest format grant."""

    size: int
    grant_digest: str | None
    initialised: bool
    record: dict[str, Any] | None


def owner(tx: Connection, path: str) -> Owned | None:
    """Who owns `path` (``repo/type/tag``), or None when nobody ever stored anything there."""
    return _owner(tx, path, lock=False)


def _owner(tx: Connection, path: str, *, lock: bool) -> Owned | None:
    c = t.resources.c
    query = select(c.app_id, c.newest, c.deleted).where(c.path == path)
    row = tx.execute(query.with_for_update() if lock else query).one_or_none()
    return None if row is None else Owned(row.app_id, row.newest, row.deleted)


def newest(tx: Connection, path: str) -> Version | None:
    """The newest version of a resource, or None when it is missing or deleted."""
    owned = owner(tx, path)
    if owned is None or owned.deleted:
        return None
    c = t.resource_versions.c
    row = tx.execute(select(c.version, c.sealed).where(c.path == path, c.version == owned.newest)).one_or_none()
    return None if row is None else Version(row.version, bytes(row.sealed))


def claim(tx: Connection, app_id: str, path: str) -> Owned:
    """Give an unowned path to `app_id`; returns the owner, which may be another app, before the new version.

    The path stays locked until the transaction ends, so that writers of one path number their versions in turn.
    """
    found = _owner(tx, path, lock=True)
    if found is None:
        tx.execute(insert(t.resources).values(path=path, app_id=app_id, newest=0, deleted=True))
        return Owned(app_id, 0, deleted=True)
    return found


def add_version(tx: Connection, path: str, version: Version, now: datetime) -> None:
    """Store the next version of a claimed path."""
    tx.execute(
        insert(t.resource_versions).values(
            path=path, version=version.version, sealed=version.sealed, created=millis(now)
        )
    )
    tx.execute(update(t.resources).where(t.resources.c.path == path).values(newest=version.version, deleted=False))


def remove(tx: Connection, path: str) -> bool:
    """Delete every version, keep the owner and the count; False when there was nothing."""
    owned = owner(tx, path)
    if owned is None or owned.deleted:
        return False
    tx.execute(t.resource_versions.delete().where(t.resource_versions.c.path == path))
    tx.execute(update(t.resources).where(t.resources.c.path == path).values(deleted=True))
    return True


def listing(tx: Connection, app_id: str) -> list[Any]:
    """(path, newest version) of an app's resources that are not deleted."""
    c = t.resources.c
    query = select(c.path, c.newest).where(c.app_id == app_id, c.deleted.is_(False)).order_by(c.path)
    return list(tx.execute(query))


def volume(tx: Connection, app_id: str, name: str) -> Volume | None:
    """The record of a volume, or None."""
    c = t.volumes.c
    row = tx.execute(select(t.volumes).where(c.app_id == app_id, c.name == name)).one_or_none()
    if row is None:
        return None
    return Volume(row.size, row.grant_digest, row.initialised, json.loads(row.record) if row.record else None)


def put_volume(tx: Connection, app_id: str, name: str, value: Volume, now: datetime) -> None:
    """Write the record of a volume."""
    c = t.volumes.c
    values = {
        "size": value.size,
        "grant_digest": value.grant_digest,
        "initialised": value.initialised,
        "record": json.dumps(value.record) if value.record is not None else None,
        "changed": millis(now),
    }
    if tx.execute(update(t.volumes).where(c.app_id == app_id, c.name == name).values(**values)).rowcount == 0:
        tx.execute(insert(t.volumes).values(app_id=app_id, name=name, **values))
