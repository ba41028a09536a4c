"""The decision log: what was decided is recorded before it takes effect, and a nonce is spent with its decision."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from casemate.broker.hearing import replay
from casemate.broker.refusals import Unauthenticated
from casemate.broker.sessions import Session
from casemate.drivers.store import AlreadySpent, record
from casemate.errors import Finding, Malformed, Refused, Unusable

if TYPE_CHECKING:
    from casemate.broker.assemble import Broker


def decided(
    broker: Broker,
    act: str,
    now: datetime,
    session: Session,
    findings: Iterable[Finding],
    *,
    resource: str | None = None,
    spends: str | None = None,
) -> None:
    """Record a decision on a genuine guest; with `spends` that nonce is used up in the same transaction."""
    told = tuple(findings)
    try:
        with broker.store.write() as tx:
            record.decide(
                tx,
                now,
                act,
                told,
                genuine=True,
                app_id=session.app_id,
                manifest_digest=session.manifest_digest,
                tee=session.tee,
                resource=resource,
            )
            if spends is not None:
                record.spend(tx, spends, now, _keep(broker))
    except AlreadySpent:
        refusal = replay()
        with broker.store.write() as tx:
            record.decide(tx, now, act, refusal.findings, genuine=False, tee=session.tee)
        raise refusal from None


@contextmanager
def failures(broker: Broker, act: str, now: datetime, *, spends: str, tee: str) -> Iterator[None]:
    """Evidence that cannot be verified is refused as `Unauthenticated`, recorded, and its nonce is used up."""
    try:
        yield
    except Refused as error:
        findings = error.findings
    except (Malformed, Unusable) as error:
        findings = (Finding(f"{tee}.evidence", "evidence that can be read", str(error)[:500], error.hint),)
    else:
        return
    try:
        with broker.store.write() as tx:
            record.decide(tx, now, act, findings, genuine=False, tee=tee)
            record.spend(tx, spends, now, _keep(broker))
    except AlreadySpent:
        raise replay() from None
    raise Unauthenticated(findings)


@contextmanager
def refusals(broker: Broker, act: str, *, tee: str) -> Iterator[None]:
    """Record a refusal of somebody who has shown no evidence, and let it pass on."""
    try:
        yield
    except Refused as error:
        with broker.store.write() as tx:
            record.decide(tx, broker.clock(), act, error.findings, genuine=False, tee=tee)
        raise


def _keep(broker: Broker) -> timedelta:
    return timedelta(seconds=2 * broker.settings.challenge_seconds)
