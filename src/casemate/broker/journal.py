"""The decision log: what was decided is recorded before it takes effect, and a nonce is spent with its decision."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Table, insert

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
    facts: dict[str, Any] | None = None,
    rows: Sequence[tuple[Table, dict[str, Any]]] = (),
    together: Callable[[Connection], None] | None = None,
) -> str:
    """Record a decision on a genuine guest, durably; returns the id of its receipt.

    In the same transaction: with `spends` that nonce is used up, `rows` are inserted, and `together` is called; what it
    raises fails this decision alone. `facts` are plain JSON values for the log (`evidence`, `collateral`, `version`,
    `lease`, ...), never a secret or the hash of one.
    """
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
            for table, values in rows:
                tx.execute(insert(table).values(**values))
            if together is not None:
                together(tx)
    except AlreadySpent:
        refusal = replay()
        with broker.store.write() as tx:
            record.decide(tx, now, act, refusal.findings, genuine=False, tee=session.tee)
        raise refusal from None
    return ""


def admin(broker: Broker, tx: Connection, *, who: str, act: str, facts: dict[str, Any]) -> None:
    """Record an act of an admin in the transaction of the act itself; call it last, it takes the log's lock.

    `who` is `issuer#subject`, or "local". `facts` are plain JSON values, never a secret or the hash of one; an `app` or
    a `tenant` among them says whose auditors may read the entry.
    """


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
