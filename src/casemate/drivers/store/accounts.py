"""Tenants and admins, all within a transaction. A tenant of None is the broker itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from casemate.drivers.store.registry import millis, rfc3339
from casemate.drivers.store.tables import apps
from casemate.drivers.store.tables_access import admins, audiences, tenants

BROKER = "*"


@dataclass(frozen=True)
class Account:
    """A recorded admin."""

    who: str
    known_by: str
    credential: str
    role: str
    tenant: str | None
    created: str


def tenant(tx: Connection, name: str | None) -> str | None:
    """A tenant's settings (JSON), or None when there is no such tenant."""
    found: str | None = tx.execute(
        select(tenants.c.settings).where(tenants.c.name == (name or BROKER))
    ).scalar_one_or_none()
    return found


def all_tenants(tx: Connection) -> dict[str, str]:
    """Settings by name; the broker's own is among them as `*` once it was set."""
    rows = tx.execute(select(tenants.c.name, tenants.c.settings).order_by(tenants.c.name))
    return {row.name: row.settings for row in rows}


def set_tenant(tx: Connection, name: str | None, settings: str, now: datetime) -> bool:
    """Make a tenant or change its settings; True when it is new."""
    stored, moment = name or BROKER, millis(now)
    changed = tx.execute(update(tenants).where(tenants.c.name == stored).values(settings=settings, changed=moment))
    if changed.rowcount:
        return False
    tx.execute(insert(tenants).values(name=stored, settings=settings, created=moment, changed=moment))
    return True


def add_admin(tx: Connection, account: Account, now: datetime) -> None:
    """Record an admin; an IntegrityError tells that the name or the credential is taken."""
    values = {"known_by": account.known_by, "credential": account.credential, "role": account.role}
    tx.execute(insert(admins).values(who=account.who, tenant=account.tenant, created=millis(now), **values))


def remove_admin(tx: Connection, who: str) -> bool:
    """Forget an admin; False when there is none of that name."""
    return tx.execute(delete(admins).where(admins.c.who == who)).rowcount == 1


def admin(tx: Connection, known_by: str) -> Account | None:
    """The admin who is known by this, or None."""
    return _account(tx.execute(select(admins).where(admins.c.known_by == known_by)).one_or_none())


def admin_named(tx: Connection, who: str) -> Account | None:
    """The admin of that name, or None."""
    return _account(tx.execute(select(admins).where(admins.c.who == who)).one_or_none())


def all_admins(tx: Connection) -> list[Account]:
    """Every recorded admin, by name."""
    rows = tx.execute(select(admins).order_by(admins.c.who))
    return [account for row in rows if (account := _account(row)) is not None]


def owners(tx: Connection, tenant: str | None, *, own: bool = False) -> int:
    """How many recorded owners may act for a tenant (None: for the broker); with `own` the broker's don't count."""
    whole = admins.c.tenant.is_(None)
    scope = whole if tenant is None else admins.c.tenant == tenant if own else whole | (admins.c.tenant == tenant)
    query = select(func.count()).select_from(admins).where(admins.c.role == "owner", scope)
    return int(tx.execute(query).scalar_one())


def tenant_of(tx: Connection, app_id: str) -> str | None:
    """The tenant of an app, or None when there is no such app."""
    found: str | None = tx.execute(select(apps.c.tenant).where(apps.c.app_id == app_id)).scalar_one_or_none()
    return found


def audiences_of(tx: Connection, app_id: str) -> tuple[str, ...]:
    """For whom an app's guests may get tokens."""
    query = select(audiences.c.audience).where(audiences.c.app_id == app_id).order_by(audiences.c.audience)
    return tuple(tx.execute(query).scalars())


def set_audiences(tx: Connection, app_id: str, names: tuple[str, ...]) -> None:
    """Replace them."""
    tx.execute(delete(audiences).where(audiences.c.app_id == app_id))
    for name in names:
        tx.execute(insert(audiences).values(app_id=app_id, audience=name))


def _account(row: Row[tuple[object, ...]] | None) -> Account | None:
    if row is None:
        return None
    return Account(row.who, row.known_by, row.credential, row.role, row.tenant, rfc3339(row.created))
