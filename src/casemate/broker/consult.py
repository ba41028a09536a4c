"""Step 8: what the store says about a guest whose evidence is genuine, read in one transaction."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from casemate.broker import leases, policies
from casemate.drivers.store import registry
from casemate.drivers.store.leases import Seen
from casemate.schema.app import AppStatement
from casemate.schema.claims import Claims
from casemate.schema.manifest import Manifest
from casemate.schema.reference import ReferenceValues

if TYPE_CHECKING:
    from casemate.broker.assemble import Broker


@dataclass(frozen=True)
class Consulted:
    """The app with its releases, what its policies rest on, accepted images, and the leases that it has."""

    statement: AppStatement | None
    basis: policies.Basis
    references: tuple[ReferenceValues, ...]
    leased: Seen | None

    @property
    def app_id(self) -> str | None:
        """The app's id."""
        return self.statement.app_id if self.statement else None


def consult(broker: Broker, claims: Claims, manifest: Manifest | None, renews: str, now: datetime) -> Consulted:
    """The releases in the store are the ledger for now; `renews` is the lease that the guest says it has."""
    app_id = manifest.app if manifest else None
    with broker.store.read() as tx:
        known = broker.store.known.at(tx)
        statement = known.get(("statement", app_id), lambda: registry.statement(tx, app_id)) if app_id else None
        base = policies.basis(broker, tx, statement.founding.tenant if statement else "", now, known)
        tenant = base.tenant or None
        references = known.get(("references", claims.tee, tenant), lambda: registry.references(tx, claims.tee, tenant))
        leased = leases.seen(tx, statement.app_id if statement else None, renews, now)
    return Consulted(statement, base, references, leased)
