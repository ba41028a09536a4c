"""Repositories that the settings give to a tenant: resources in them need no app, as CoCo's tools store them.

Such a resource belongs to an app that stands for the repository: its id follows from tenant and repository, it allows
no platform and has no release, so that no guest runs it. What is there opens by the tenant's resource policy alone
(`policies.judge`), to guests without a manifest.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from casemate.broker import journal, tenants
from casemate.drivers.store import accounts, registry, vaulted
from casemate.schema.app import Founding

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from casemate.broker.assemble import Broker

_TAG = b"casemate repository v1\0"
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,50}[a-z0-9])?")
_FOUNDED = "1970-01-01T00:00:00.000Z"  # the id must be the same on every replica


def owner(broker: Broker, path: str, who: str) -> str:
    """The app that a value at `path` belongs to when none is named: the path's own, else its repository's, else ""."""
    with broker.store.read() as tx:
        owned = vaulted.owner(tx, path)
    if owned is not None:
        return owned.app_id
    repo = path.partition("/")[0]
    tenant = broker.settings.repos.get(repo)
    return "" if tenant is None else _stands(broker, tenant, repo, who)


def founding(tenant: str, repo: str) -> Founding:
    """The record of the app that stands for a repository."""
    digest = hashlib.sha256(_TAG + tenant.encode() + b"\0" + repo.encode()).hexdigest()
    name = f"repository-{repo if _LABEL.fullmatch(repo) else digest[:16]}"
    return Founding(tenant=tenant, name=name, founded=_FOUNDED, salt=digest[:32])


def _stands(broker: Broker, tenant: str, repo: str, who: str) -> str:
    record = founding(tenant, repo)

    def act(tx: Connection) -> None:
        if registry.statement(tx, record.app_id) is None:
            if accounts.tenant(tx, tenant) is None:
                tenants.make(tx, broker, tenant, who=who)
            registry.found(tx, record, (), broker.clock())
            facts = {"app": record.app_id, "tenant": tenant, "repository": repo}
            journal.admin(broker, tx, who=who, act="app.found", facts=facts)

    broker.store.written(act)
    return record.app_id
