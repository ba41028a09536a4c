"""Apps with their releases, and what the broker trusts: anchors and reference values. All within a transaction."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import msgspec
from sqlalchemy import Connection, delete, insert, select, update

from casemate.crypto import pins
from casemate.drivers.store import tables as t
from casemate.drivers.store.known import changed
from casemate.errors import Refused
from casemate.schema.app import AppStatement, Founding, Release
from casemate.schema.endorsements import Anchor
from casemate.schema.reference import ReferenceValues


def millis(moment: datetime) -> int:
    """Milliseconds since 1970."""
    return int(moment.timestamp() * 1000)


def moment(value: int) -> datetime:
    """The reverse of `millis`."""
    return datetime.fromtimestamp(value / 1000, UTC)


def rfc3339(value: int) -> str:
    """`millis` as text."""
    return moment(value).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def found(tx: Connection, founding: Founding, platforms: tuple[str, ...], now: datetime) -> None:
    """Record a new app."""
    tx.execute(
        insert(t.apps).values(
            app_id=founding.app_id,
            founding=json.dumps(msgspec.to_builtins(founding)),
            tenant=founding.tenant,
            name=founding.name,
            platforms=json.dumps(platforms),
            created=millis(now),
        )
    )
    changed(tx)


def allow(tx: Connection, app_id: str, platforms: tuple[str, ...]) -> bool:
    """Set the platform classes of an app; False when there is no such app."""
    done = tx.execute(update(t.apps).where(t.apps.c.app_id == app_id).values(platforms=json.dumps(platforms)))
    changed(tx)
    return done.rowcount == 1


def statement(tx: Connection, app_id: str) -> AppStatement | None:
    """An app with its releases, oldest first, or None."""
    row = tx.execute(select(t.apps).where(t.apps.c.app_id == app_id)).one_or_none()
    if row is None:
        return None
    c = t.releases.c
    query = select(c.manifest_digest, c.state, c.registered).where(c.app_id == app_id).order_by(c.registered)
    releases = tuple(
        Release(manifest_digest=digest, state=state, registered=rfc3339(registered))
        for digest, state, registered in tx.execute(query)
    )
    return AppStatement(
        app_id=app_id,
        founding=msgspec.json.decode(row.founding, type=Founding),
        releases=releases,
        platforms=tuple(json.loads(row.platforms)),
    )


def app_ids(tx: Connection) -> list[str]:
    """Every app's id, oldest first."""
    return list(tx.execute(select(t.apps.c.app_id).order_by(t.apps.c.created)).scalars())


def add_release(tx: Connection, app_id: str, digest: str, manifest: bytes, now: datetime) -> None:
    """Register a manifest as active; one that is active already stays so, a revoked one can't come back."""
    c = t.releases.c
    state = tx.execute(select(c.state).where(c.app_id == app_id, c.manifest_digest == digest)).scalar_one_or_none()
    if state == "revoked":
        raise Refused.because(
            "release.revoked",
            expected="a manifest that was not revoked",
            found=f"{digest}: revoked",
            hint="a revoked manifest stays revoked; change the manifest and register that one",
        )
    if state is None:
        row = {"app_id": app_id, "manifest_digest": digest, "manifest": manifest, "state": "active"}
        tx.execute(insert(t.releases).values(**row, registered=millis(now), changed=millis(now)))
        changed(tx)


def revoke_release(tx: Connection, app_id: str, digest: str, now: datetime) -> bool:
    """Revoke a release; False when the app has no such release."""
    chosen = (t.releases.c.app_id == app_id) & (t.releases.c.manifest_digest == digest)
    changed(tx)
    return tx.execute(update(t.releases).where(chosen).values(state="revoked", changed=millis(now))).rowcount == 1


def manifest(tx: Connection, app_id: str, digest: str) -> bytes | None:
    """The canonical manifest of a release in any state, or None."""
    c = t.releases.c
    found = tx.execute(select(c.manifest).where(c.app_id == app_id, c.manifest_digest == digest)).scalar_one_or_none()
    return None if found is None else bytes(found)


def add_anchor(tx: Connection, anchor: Anchor, now: datetime) -> str:
    """Trust a root; returns its fingerprint. The same certificate again replaces class, name and TEEs."""
    fingerprint = pins.digest(anchor.certificate)
    tx.execute(delete(t.anchors).where(t.anchors.c.fingerprint == fingerprint))
    values = {"certificate": anchor.certificate, "platform_class": anchor.platform_class, "name": anchor.name}
    tees = ",".join(anchor.tees)
    tx.execute(insert(t.anchors).values(fingerprint=fingerprint, created=millis(now), tees=tees, **values))
    changed(tx)
    return fingerprint


def anchor(tx: Connection, fingerprint: str) -> Anchor | None:
    """One trusted root, or None."""
    return next((one for one in anchors(tx) if pins.digest(one.certificate) == fingerprint), None)


def remove_anchor(tx: Connection, fingerprint: str) -> bool:
    """Trust a root no longer; False when it was not trusted."""
    changed(tx)
    return tx.execute(delete(t.anchors).where(t.anchors.c.fingerprint == fingerprint)).rowcount == 1


def anchors(tx: Connection) -> tuple[Anchor, ...]:
    """Every trusted root."""
    c = t.anchors.c
    rows = tx.execute(select(c.certificate, c.platform_class, c.name, c.tees).order_by(c.created))
    return tuple(
        Anchor(
            certificate=bytes(r.certificate),
            platform_class=r.platform_class,
            name=r.name,
            tees=tuple(r.tees.split(",")),
        )
        for r in rows
    )


def add_reference(tx: Connection, reference: ReferenceValues, now: datetime, tenant: str | None = None) -> None:
    """Accept a guest image for a tenant's apps, or for all; the same name and TEE again replaces it."""
    c = t.reference_values.c
    whose = c.tenant == (tenant or "")
    tx.execute(delete(t.reference_values).where(whose, c.name == reference.name, c.tee == reference.tee))
    tx.execute(
        insert(t.reference_values).values(
            tenant=tenant or "",
            name=reference.name,
            tee=reference.tee,
            registers=json.dumps(reference.values),
            expires=millis(reference.expires) if reference.expires else None,
            created=millis(now),
        )
    )
    changed(tx)


def reference(tx: Connection, name: str, tee: str, tenant: str | None) -> dict[str, str] | None:
    """The registers of a tenant's (None: the broker's) own reference values of that name and TEE, or None."""
    c = t.reference_values.c
    query = select(c.registers).where(c.tenant == (tenant or ""), c.name == name, c.tee == tee)
    found = tx.execute(query).scalar_one_or_none()
    return None if found is None else dict(json.loads(found))


def remove_reference(tx: Connection, name: str, tee: str, tenant: str | None) -> bool:
    """Accept a guest image no longer; False when it was not accepted."""
    c = t.reference_values.c
    changed(tx)
    chosen = (c.tenant == (tenant or "")) & (c.name == name) & (c.tee == tee)
    return tx.execute(delete(t.reference_values).where(chosen)).rowcount == 1


def references(tx: Connection, tee: str | None = None, tenant: str | None = None) -> tuple[ReferenceValues, ...]:
    """Reference values that are accepted for all apps and, with `tenant`, for its own; all TEEs' or those of one."""
    c = t.reference_values.c
    query = select(t.reference_values).where(c.tenant.in_(("", tenant or ""))).order_by(c.created.desc())
    if tee is not None:
        query = query.where(c.tee == tee)
    return tuple(
        ReferenceValues(
            name=row.name,
            tee=row.tee,
            values=json.loads(row.registers),
            expires=moment(row.expires) if row.expires is not None else None,
        )
        for row in tx.execute(query)
    )
