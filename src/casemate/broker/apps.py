"""Apps and their releases, and what the broker trusts: the acts of an admin, and what anybody may know."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from casemate import __version__
from casemate.broker import journal, receipts, tenants, trust
from casemate.broker.refusals import Missing
from casemate.crypto import pins
from casemate.drivers.store import accounts, record, registry, vaulted
from casemate.errors import Malformed, Refused
from casemate.schema import manifest as manifests
from casemate.schema.app import AppStatement, Founding
from casemate.wire.encoding import b64

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from casemate.broker.assemble import Broker

_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
LOCAL = "local"  # who acts when a command on this machine does


def found(
    broker: Broker,
    tenant: str,
    name: str,
    platforms: tuple[str, ...],
    *,
    who: str = LOCAL,
    new_tenant: bool = True,
) -> AppStatement:
    """Found an app. The same name as often as wanted: the id is the hash of the founding record.

    With `new_tenant` its tenant is made when there is none of that name.
    """
    if not _TENANT.fullmatch(tenant) or not _NAME.fullmatch(name):
        raise Malformed("an app needs a tenant (letters, digits, `.`, `_`, `-`) and a name that is a DNS label")
    now = broker.clock()
    founded = registry.rfc3339(registry.millis(now))
    founding = Founding(tenant=tenant, name=name, founded=founded, salt=os.urandom(16).hex())

    def act(tx: Connection) -> None:
        if accounts.tenant(tx, tenant) is None:
            if not new_tenant:
                raise Missing(f"no tenant {tenant}", hint="an owner of the broker makes it: casemate tenant add")
            tenants.make(tx, broker, tenant, who=who)
        registry.found(tx, founding, _classes(platforms), now)
        facts = {"app": founding.app_id, "tenant": tenant, "name": name, "platforms": list(platforms)}
        journal.admin(broker, tx, who=who, act="app.found", facts=facts)

    broker.store.written(act)
    return statement(broker, founding.app_id)


def allow(broker: Broker, app_id: str, platforms: tuple[str, ...], *, who: str = LOCAL) -> AppStatement:
    """Set the platform classes that an app allows."""
    statement(broker, app_id)
    with broker.store.write() as tx:
        registry.allow(tx, app_id, _classes(platforms))
        facts = {
            "app": app_id,
            "platforms": list(platforms),
            **trust.recalled(broker, tx, "app.platforms", app_id=app_id),
        }
        journal.admin(broker, tx, who=who, act="app.platforms", facts=facts)
    return statement(broker, app_id)


def statement(broker: Broker, app_id: str) -> AppStatement:
    """What this broker says of an app."""
    with broker.store.read() as tx:
        known = registry.statement(tx, app_id) if pins.is_digest(app_id) else None
    if known is None:
        raise _no_app(app_id)
    return known


def listing(broker: Broker) -> list[AppStatement]:
    """Every app, oldest first."""
    with broker.store.read() as tx:
        found = [registry.statement(tx, app_id) for app_id in registry.app_ids(tx)]
    return [entry for entry in found if entry is not None]


def resources(broker: Broker, app_id: str) -> list[dict[str, Any]]:
    """An app's resources and their newest versions; never their content."""
    statement(broker, app_id)
    with broker.store.read() as tx:
        found = vaulted.listing(tx, app_id)
    purged = {path: registry.rfc3339(at) if at is not None else None for path, _, at in found}
    return [{"resource": f"kbs:///{path}", "version": n, "purged": purged[path]} for path, n, _ in found]


def add_release(broker: Broker, app_id: str, document: bytes, *, who: str = LOCAL) -> str:
    """Make a manifest an active release of its app; returns the manifest's digest."""
    known = statement(broker, app_id)
    manifest = manifests.parse(document)
    for rule, expected, found in (
        ("manifest.app", app_id, manifest.app),
        ("manifest.name", known.founding.name, manifest.name),
    ):
        if expected != found:
            hint = "the manifest must name the app that it is a release of"
            raise Refused.because(rule, expected=expected, found=found, hint=hint)
    with broker.store.write() as tx:
        registry.add_release(tx, app_id, manifest.digest, manifest.canonical(), broker.clock())
        facts = {"app": app_id, "release": manifest.digest}
        journal.admin(broker, tx, who=who, act="release.add", facts=facts)
    return manifest.digest


def revoke_release(broker: Broker, app_id: str, digest: str, *, who: str = LOCAL) -> None:
    """Revoke a release: from now on it gets nothing."""
    statement(broker, app_id)
    with broker.store.write() as tx:
        if not pins.is_digest(digest) or not registry.revoke_release(tx, app_id, digest, broker.clock()):
            raise Missing(f"app {app_id[:80]} has no release {digest[:80]}", hint="casemate release list")
        ended = trust.recalled(broker, tx, "release.revoke", app_id=app_id, manifest_digest=digest)
        journal.admin(broker, tx, who=who, act="release.revoke", facts={"app": app_id, "release": digest, **ended})


def decisions(
    broker: Broker, limit: int, app_id: str | None = None, tenant: str | None = None, allowed: bool | None = None
) -> list[dict[str, Any]]:
    """The newest decisions, newest first: all, those on one app, those on a tenant's apps, those of one outcome."""
    if app_id is not None:
        statement(broker, app_id)
    with broker.store.read() as tx:
        return record.decisions(tx, limit, app_id, tenant, allowed)


def info(broker: Broker) -> dict[str, Any]:
    """What anybody may know of this broker."""
    with broker.store.read() as tx:
        anchors = registry.anchors(tx)
    return {
        "version": __version__,
        "key_pin": broker.pin,
        "signing_key": broker.signer.jwk,
        "log": receipts.keys(broker).as_document(),
        "anchors": [
            {
                "certificate": b64(a.certificate),
                "platform_class": a.platform_class,
                "name": a.name,
                "tees": list(a.tees),
            }
            for a in anchors
        ],
    }


def _classes(platforms: tuple[str, ...]) -> tuple[str, ...]:
    if not platforms or any(name not in trust.CLASSES for name in platforms):
        raise Malformed(f"platforms: {' or '.join(trust.CLASSES)}, at least one, are wanted")
    return tuple(dict.fromkeys(platforms))


def _no_app(app_id: str) -> Missing:
    known = app_id[:80] if pins.is_digest(app_id) else repr(app_id[:80])
    return Missing(f"no app {known}", hint="casemate app list shows the apps of this broker")
