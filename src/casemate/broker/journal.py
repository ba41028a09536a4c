"""The decision log: what was decided is recorded before it takes effect, and a nonce is spent with its decision."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Table

from casemate.broker import held
from casemate.broker.hearing import replay
from casemate.broker.log import Decision
from casemate.broker.refusals import Unauthenticated
from casemate.broker.sessions import Session
from casemate.drivers.store import AlreadySpent, record
from casemate.errors import Finding, Malformed, Refused, Unusable
from casemate.wire import jcs
from casemate.wire.encoding import b64u

if TYPE_CHECKING:
    from casemate.broker.assemble import Broker

_MAX_TEXT = 500
_MAX_FAILED, _MAX_PASSED = 24, 64
_REQUIRED = {"EC": ("crv", "kty", "x", "y"), "RSA": ("e", "kty", "n"), "AKP": ("alg", "kty", "pub")}


def decided(
    broker: Broker,
    act: str,
    now: datetime,
    session: Session,
    findings: Iterable[Finding],
    *,
    resource: str | None = None,
    spends: record.Ticket | None = None,
    facts: dict[str, Any] | None = None,
    rows: Sequence[tuple[Table, dict[str, Any]]] = (),
    together: Callable[[Connection], None] | None = None,
) -> str:
    """Record a decision on a genuine guest, durably (or as `held` says); returns the id of its receipt.

    In the same transaction: with `spends` that nonce is used up, `rows` are inserted, and `together` is called; what it
    raises fails this decision alone. `facts` are plain JSON values for the log (`evidence`, `collateral`, `version`,
    `lease`, ...), never a secret or the hash of one.
    """
    told = tuple(findings)
    about = {"app_id": session.app_id, "manifest_digest": session.manifest_digest, "tee": session.tee}
    fields = {
        "app": session.app_id,
        "release": session.manifest_digest,
        "tee": session.tee,
        "platform": session.platform_class,
        "key": thumbprint(session.tee_pubkey),
        "resource": resource,
        "evidence": session.evidence or None,
        "collateral": session.collateral or None,
        "passed": [f.rule[:80] for f in told if f.ok][:_MAX_PASSED],
        "failed": _failed(told) or None,
        **(facts or {}),
    }
    row = record.row(now, act, told, genuine=True, resource=resource, **about)
    entry = broker.log.pending(act, now, row["allowed"], fields, app_id=session.app_id)
    held.record(broker.log, _recorded(broker, act, session, told, Decision(row, entry, spends, rows, together)))
    return entry.id


def _recorded(broker: Broker, act: str, session: Session, told: tuple[Finding, ...], decision: Decision) -> held.Steps:
    """The decision; where its nonce was used meanwhile the replay instead, as `Unauthenticated`. Both are counted."""
    try:
        yield decision
    except AlreadySpent:
        refusal = replay()
        yield Decision(record.row(broker.clock(), act, refusal.findings, genuine=False, tee=session.tee), None)
        broker.log.count(act, [refusal.findings[0].rule])
        raise refusal from None
    broker.meter.decided(act, session.tee, told)


def admin(broker: Broker, tx: Connection, *, who: str, act: str, facts: dict[str, Any]) -> None:
    """Record an act of an admin in the transaction of the act itself; call it last, it takes the log's lock.

    `who` is `issuer#subject`, or "local". `facts` are plain JSON values, never a secret or the hash of one; an `app` or
    a `tenant` among them says whose auditors may read the entry.
    """
    app, tenant = (facts.get(name) if isinstance(facts.get(name), str) else None for name in ("app", "tenant"))
    fields = {"who": who[:_MAX_TEXT], **facts}
    broker.log.admin(tx, broker.log.pending(act, broker.clock(), None, fields, app_id=app, tenant=tenant))


def guest(session: Session) -> str:
    """Who acts when an attested guest does, as `who` of an entry."""
    return f"guest#{thumbprint(session.tee_pubkey)}"


def change_log_key(broker: Broker, *, who: str) -> str:
    """Give the log a new key, which is an entry that the old one still signed; returns the new one's vkey."""
    with broker.store.write() as tx:
        admin(broker, tx, who=who, act="key.rotate", facts={"keys": ["log"]})
        return broker.log.rotate(tx)


@contextmanager
def failures(broker: Broker, act: str, now: datetime, *, spends: record.Ticket, tee: str) -> Iterator[None]:
    """Evidence that cannot be verified is refused as `Unauthenticated`, recorded (see `held`), its nonce used up."""
    try:
        yield
    except Refused as error:
        findings = error.findings
    except (Malformed, Unusable) as error:
        findings = (Finding(f"{tee}.evidence", "evidence that can be read", str(error)[:500], error.hint),)
    else:
        return
    decision = Decision(record.row(now, act, findings, genuine=False, tee=tee), None, spends)
    held.record(broker.log, _refused(broker, act, tee, findings, decision))
    raise Unauthenticated(findings)


def _refused(broker: Broker, act: str, tee: str, findings: tuple[Finding, ...], decision: Decision) -> held.Steps:
    """The refusal; where its nonce was used meanwhile that is what is said, as `Unauthenticated`. Both are counted."""
    told = findings
    try:
        yield decision
    except AlreadySpent:
        told = replay().findings
    broker.log.count(act, _first(told))
    broker.meter.decided(act, tee, told)
    if told is not findings:
        raise Unauthenticated(told)


@contextmanager
def counted(broker: Broker, act: str) -> Iterator[None]:
    """Count a refusal of somebody who has not even a session; nothing else is kept of it."""
    try:
        yield
    except Refused as error:
        broker.log.count(act, _first(error.findings))
        raise


def thumbprint(key: dict[str, Any]) -> str:
    """A public JWK's thumbprint (RFC 7638; RFC 9964 for AKP), base64url."""
    wanted = _REQUIRED.get(str(key.get("kty")), tuple(key))
    return b64u(hashlib.sha256(jcs.canonical({name: key[name] for name in wanted if name in key})).digest())


def _failed(findings: tuple[Finding, ...]) -> list[dict[str, str]]:
    """Failed rules with what was expected and found; at most as much as an entry may say of a field."""
    failed = [f for f in findings if not f.ok][:_MAX_FAILED]
    return [{"rule": f.rule[:80], "expected": _plain(f.expected), "found": _plain(f.found)} for f in failed]


def _plain(text: str) -> str:
    return text[:120].encode("utf-8", "replace").decode()


def _first(findings: Iterable[Finding]) -> list[str]:
    """The rule that a refusal is counted under."""
    return [finding.rule for finding in findings if not finding.ok][:1]
