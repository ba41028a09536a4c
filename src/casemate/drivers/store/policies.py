"""Policies with their history, and recorded attestations. All within a transaction."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, delete, func, insert, select, true

from casemate.drivers.store.known import changed
from casemate.drivers.store.registry import millis, rfc3339
from casemate.drivers.store.tables_policy import attestations as a
from casemate.drivers.store.tables_policy import policies as p
from casemate.wire import jcs

ATTESTATION, RESOURCE = "attestation", "resource"
MAX_RECORDED = 1 << 20  # of what an app's attestation gave its policies, packed
MAX_STRANGE = 16 << 10  # of that of a guest without an app, or of one that was refused: anybody may be that
KEPT = 20_000
KEPT_BYTES = 1 << 30
STRANGE_BYTES = 128 << 20
AT_ONCE = 400  # deleted in one transaction: others wait for it


class Stored(NamedTuple):
    """The newest version of a policy; `digest` is empty when it was taken back."""

    tenant: str
    kind: str
    name: str
    version: int
    digest: str


def current(tx: Connection, tenant: str) -> dict[tuple[str, str], Stored]:
    """(kind, name) → the policy that holds for a tenant: its own, else the whole broker's."""
    newest = (
        select(p.c.tenant, p.c.kind, p.c.name, func.max(p.c.version).label("version"))
        .where(p.c.tenant.in_({"", tenant}))
        .group_by(p.c.tenant, p.c.kind, p.c.name)
        .subquery()
    )
    joined = (newest.c.tenant == p.c.tenant) & (newest.c.kind == p.c.kind) & (newest.c.name == p.c.name)
    query = (
        select(p.c.tenant, p.c.kind, p.c.name, p.c.version, p.c.digest)
        .join(newest, joined & (newest.c.version == p.c.version))
        .where(p.c.digest != "")
        .order_by(p.c.tenant)  # "" sorts first: a tenant's own policy comes after it
    )
    return {(row.kind, row.name): Stored(*row) for row in tx.execute(query)}


def text(tx: Connection, stored: Stored) -> str | None:
    """The text of a version."""
    c = p.c
    query = select(c.text).where(
        c.tenant == stored.tenant, c.kind == stored.kind, c.name == stored.name, c.version == stored.version
    )
    return tx.execute(query).scalar_one_or_none()


def put(
    tx: Connection,
    where: tuple[str, str, str],
    policy: str | None,
    *,
    digest: str,
    who: str,
    now: datetime,
) -> int:
    """Store the next version of (tenant, kind, name); returns its number. None takes the policy back."""
    c, (tenant, kind, name) = p.c, where
    query = select(func.max(c.version)).where(c.tenant == tenant, c.kind == kind, c.name == name)
    version = (tx.execute(query).scalar_one() or 0) + 1
    row = {"tenant": tenant, "kind": kind, "name": name, "version": version}
    tx.execute(insert(p).values(**row, text=policy, digest=digest, who=who[:512], created=millis(now)))
    changed(tx)
    return version


def history(tx: Connection, tenant: str, kind: str, name: str) -> list[dict[str, Any]]:
    """Every version of a policy, newest first, without its text."""
    c = p.c
    query = select(c.version, c.digest, c.who, c.created).where(c.tenant == tenant, c.kind == kind, c.name == name)
    return [
        {"version": row.version, "digest": row.digest or None, "who": row.who, "created": rfc3339(row.created)}
        for row in tx.execute(query.order_by(c.version.desc()))
    ]


def recorded(
    identity: str, now: datetime, expires: float, claims: bytes, inputs: list[dict[str, Any]], **facts: Any
) -> dict[str, Any]:
    """The row of an attestation; `claims` as `document` has them.

    Inputs that are too long are left out: they cannot be replayed.
    """
    packed = _packed(document(inputs))
    most = MAX_RECORDED if facts["app_id"] is not None and facts["allowed"] else MAX_STRANGE
    return {
        "id": identity,
        "time": millis(now),
        "expires": int(expires * 1000),
        "claims": _packed(claims),
        "inputs": packed if len(packed) <= most else _packed(b"[]"),
        **facts,
    }


def document(value: Any) -> bytes:
    """Plain JSON as it is kept, before it is packed."""
    return jcs.compact(value)


def claims_of(tx: Connection, identity: str) -> bytes | None:
    """The token's claims of a recorded attestation as JSON, or None."""
    found = tx.execute(select(a.c.claims).where(a.c.id == identity)).scalar_one_or_none()
    return None if found is None else zlib.decompress(bytes(found))


def attestations(
    tx: Connection, tenant: str | None, since: datetime, until: datetime, limit: int
) -> list[dict[str, Any]]:
    """Recorded attestations of a period, newest first; `tenant` None means all."""
    query = select(a).where(a.c.time >= millis(since), a.c.time <= millis(until))
    if tenant is not None:
        query = query.where(a.c.tenant == tenant)
    return [_shown(row) for row in tx.execute(query.order_by(a.c.time.desc()).limit(limit))]


def attestation(tx: Connection, identity: str) -> dict[str, Any] | None:
    """One recorded attestation."""
    row = tx.execute(select(a).where(a.c.id == identity)).one_or_none()
    return None if row is None else _shown(row)


def excess(tx: Connection, now: datetime) -> list[str]:
    """Ids of what is beyond the newest `KEPT`, or their bytes, oldest first: apart for apps' guests and for all others.

    Those of apps stay while their session lasts; strangers could fill the disk by then. At most `AT_ONCE` of each.
    """
    strange = a.c.app_id.is_(None) | a.c.allowed.is_(False)
    found: list[str] = []
    for which, most, more in ((~strange, KEPT_BYTES, a.c.expires < millis(now)), (strange, STRANGE_BYTES, true())):
        edge = tx.execute(_edge(which, most)).scalar()
        if edge is not None:
            over = select(a.c.id).where(which, a.c.time <= edge, more).order_by(a.c.time).limit(AT_ONCE)
            found += tx.execute(over).scalars()
    return found


def _edge(which: ColumnElement[bool], most: int) -> Select[Any]:
    """The time of the newest row that is too much."""
    size = func.length(a.c.claims) + func.length(a.c.inputs)
    newest = select(a.c.time, size.label("size")).where(which).order_by(a.c.time.desc()).limit(KEPT + 1).subquery()
    order, c = newest.c.time.desc(), newest.c
    number, total = func.row_number().over(order_by=order), func.sum(c.size).over(order_by=order)
    ranked = select(c.time, number.label("number"), total.label("total")).subquery()
    return select(func.max(ranked.c.time)).where((ranked.c.number > KEPT) | (ranked.c.total > most))


def forget(tx: Connection, ids: Sequence[str]) -> None:
    """Delete these recorded attestations."""
    tx.execute(delete(a).where(a.c.id.in_(ids)))


def _shown(row: Any) -> dict[str, Any]:
    return {
        "id": row.id,
        "time": rfc3339(row.time),
        "tee": row.tee,
        "app": row.app_id,
        "tenant": row.tenant,
        "allowed": row.allowed,
        "evidence": row.evidence,
        "claims": _unpacked(row.claims),
        "inputs": _unpacked(row.inputs),
    }


def _packed(said: bytes) -> bytes:
    # A window that fits what is packed: making a large one ready takes longer than packing.
    packer = zlib.compressobj(1, zlib.DEFLATED, 13, 6)
    return packer.compress(said) + packer.flush()


def _unpacked(raw: bytes) -> Any:
    return json.loads(zlib.decompress(bytes(raw)))
