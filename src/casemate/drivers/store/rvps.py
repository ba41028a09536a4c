"""Reference values by id, as policies ask for them: a tenant's own, else the whole broker's; never one that expired."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from casemate.drivers.store.registry import millis, rfc3339
from casemate.drivers.store.tables_wire import rvps_values as t


def put(
    tx: Connection,
    tenant: str,
    values: Mapping[str, Any],
    *,
    expires: datetime,
    signer: str,
    source: str,
    now: datetime,
) -> None:
    """Register JSON values by id; an id again replaces what this tenant had there. `tenant` "" is the whole broker."""
    for name, value in values.items():
        tx.execute(delete(t).where(t.c.tenant == tenant, t.c.id == name))
        row = {"value": json.dumps(value), "expires": millis(expires), "signer": signer[:512], "source": source}
        tx.execute(insert(t).values(tenant=tenant, id=name, created=millis(now), **row))


def query(tx: Connection, tenant: str, name: str, now: datetime) -> Any:
    """The JSON value of an id at `now`, or None: what `query_reference_value(id)` gives to a policy of `tenant`."""
    return every(tx, tenant, now, name).get(name)


def every(tx: Connection, tenant: str, now: datetime, name: str | None = None) -> dict[str, Any]:
    """All values (or that of one id) which a policy of `tenant` sees at `now`."""
    asked = select(t.c.id, t.c.value).where(t.c.tenant.in_({"", tenant}), t.c.expires > millis(now))
    asked = asked if name is None else asked.where(t.c.id == name)
    return {row.id: json.loads(row.value) for row in tx.execute(asked.order_by(t.c.tenant))}  # "" sorts first


def listing(tx: Connection, tenant: str) -> list[dict[str, Any]]:
    """What a tenant registered, with signer and end, expired values too."""
    return [
        {
            "id": row.id,
            "value": json.loads(row.value),
            "expires": rfc3339(row.expires),
            "signer": row.signer,
            "source": row.source,
        }
        for row in tx.execute(select(t).where(t.c.tenant == tenant).order_by(t.c.id))
    ]


def remove(tx: Connection, tenant: str, name: str) -> bool:
    """Forget a value; False when there was none."""
    return tx.execute(delete(t).where(t.c.tenant == tenant, t.c.id == name)).rowcount == 1
