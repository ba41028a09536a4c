"""The two-person rule: a change that a tenant put under it waits, whole and sealed, until another owner approves it.

Rules
1. What is approved is what was asked for: the approver names the digest of the change, the broker computes it again
   from what it kept.
2. Nobody approves what they asked for. Who somebody is comes from what was proved (`identities`). What an owner of the
   broker asked for in a tenant, an owner of that tenant approves.
3. A change takes effect once, by the one decision that ended its wait, with the rights of who asked for it as they are
   then. One that was interrupted by a crash after the approval did not take effect, or did so whole; it is never tried
   again and shows no outcome. One that found no turn, before anything was done, waits again (`reopen`).
4. A change that nobody approves in time expires. Those of an admin who is removed are rejected.
5. An approver is shown all of it: a change that is too long to be shown waits for nobody, and what text hides (control
   characters, writing from right to left) is spelled out. Only bodies that may be secrets are not shown.
"""

from __future__ import annotations

import hmac
import json
import os
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import Connection

from casemate.broker import journal
from casemate.broker.identities import INIT, Admin
from casemate.broker.oidc import RANK
from casemate.broker.refusals import Conflicting, Missing
from casemate.crypto import pins
from casemate.drivers.store import accounts, pending
from casemate.drivers.store.pending import Approval
from casemate.errors import Malformed, Refused

if TYPE_CHECKING:
    from casemate.broker.assemble import Broker

MAX_WAITING = 100  # of a tenant
MAX_ASKED = 30  # of them by one admin
_SECRET = ("resource.",)  # acts whose bodies nobody is shown
_MAX_SHOWN = 1 << 20  # spelled out and in JSON that is 7 MiB at most, less than clients read
_MAX_SECRET = 4 << 20
_ODD = re.compile(r"[^\n\t -~]")
# Letters and marks by their class, and yet without a look: joiners, fillers, selectors of variants (Unicode 15).
_BLANK = re.compile(
    r"[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_MAX_OUTCOME = 2000


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A request that was not carried out yet. `salt` keeps its digest from telling what is in it."""

    act: str
    tenant: str | None
    who: str
    role: str
    scope: str | None
    method: str
    path: str
    query: str
    body: bytes
    salt: str

    @property
    def admin(self) -> Admin:
        """Who asked for it, with the rights of then."""
        return Admin(self.who, msgspec.convert(self.role, Any), self.scope)


def salt() -> str:
    """A fresh salt for a change."""
    return os.urandom(16).hex()


def hold(broker: Broker, admin: Admin, change: Change) -> Approval:
    """Keep a change until another owner decides; `Malformed` for one that is too long to be shown to them."""
    _demand_shown(change)
    kept, now, made = msgspec.json.encode(change), broker.clock(), salt()
    digest = pins.digest(kept)
    expires = now + timedelta(seconds=broker.settings.approval_seconds)
    with broker.store.write() as tx:
        pending.expire(tx, now)
        _demand_room(tx, change)
        pending.add(
            tx,
            number=made,
            tenant=change.tenant,
            act=change.act,
            digest=digest,
            sealed=broker.vault.seal(_label(made), kept),
            who=admin.who,
            now=now,
            expires=expires,
        )
        told = {"tenant": change.tenant, "approval": made, "change": change.act, "digest": digest}
        journal.admin(broker, tx, who=admin.who, act="approval.ask", facts=told)
        found = pending.get(tx, made)
    if found is None:
        raise Missing("the change is gone")
    return found


def listing(broker: Broker, admin: Admin, limit: int = 1000) -> list[dict[str, Any]]:
    """The newest changes that an admin may see, newest first, without their content."""
    now = broker.clock()
    with broker.store.write() as tx:
        pending.expire(tx, now)
        found = pending.listing(tx, limit, admin.tenant)
    return [facts(one) for one in found if admin.sees(one.tenant)]


def show(broker: Broker, number: str, admin: Admin) -> dict[str, Any]:
    """One change with its content while it waits, unless that may hold a secret; `Missing` when it is another's."""
    found, change = _opened(broker, number, admin)
    if change is None:
        return facts(found)
    shown = {"method": change.method, "path": visible(change.path), "query": visible(change.query)}
    text = None if change.act.startswith(_SECRET) else visible(change.body.decode("utf-8", "backslashreplace"))
    return {**facts(found), **shown, "body": text, "bytes": len(change.body)}


def visible(text: str) -> str:
    r"""Text in which nothing hides: what has no look of its own is escaped, as JSON would (`\u202e`)."""
    return _ODD.sub(_spelled, text)


def _spelled(found: re.Match[str]) -> str:
    if found[0].isprintable() and not _BLANK.match(found[0]):
        return found[0]
    raw = found[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{raw[at : at + 2].hex()}" for at in range(0, len(raw), 2))


def approve(broker: Broker, number: str, digest: str, admin: Admin) -> Change:
    """End the wait of a change; returns what is to be carried out now."""
    found, change = _opened(broker, number, admin)
    if change is None:
        raise _over()
    _demand_shown(change)  # an older version kept longer ones
    if not hmac.compare_digest(digest.encode(), found.digest.encode()):
        raise Conflicting.because(
            "approval.digest",
            expected="the digest of the change as you saw it",
            found="another one",
            hint="casemate approval list shows it; look at the change again",
        )
    _demand_other(found, admin)
    with broker.store.write() as tx:
        _demand_own(tx, broker, change, admin)
        _decide(tx, broker, found, pending.APPROVED, admin)
        _demand_still(tx, change)
        told = {
            "tenant": found.tenant,
            "approval": number,
            "change": found.act,
            "digest": digest,
            "asked_by": found.who,
        }
        journal.admin(broker, tx, who=admin.who, act="approval.approve", facts=told)
    return change


def reject(broker: Broker, number: str, admin: Admin) -> dict[str, Any]:
    """End the wait of a change: it is not carried out. Who asked for it may take it back like this too."""
    found, _ = _opened(broker, number, admin)
    with broker.store.write() as tx:
        _decide(tx, broker, found, pending.REJECTED, admin)
        told = {"tenant": found.tenant, "approval": number, "change": found.act, "asked_by": found.who}
        journal.admin(broker, tx, who=admin.who, act="approval.reject", facts=told)
        now = pending.get(tx, number)
    return facts(now or found)


def reopen(broker: Broker, number: str, change: Change, admin: Admin) -> None:
    """Let a change wait again whose approval found no turn: nothing of it was done. Its time runs on."""
    with broker.store.write() as tx:
        if not pending.reopen(tx, number, broker.vault.seal(_label(number), msgspec.json.encode(change))):
            return
        told = {"tenant": change.tenant, "approval": number, "change": change.act, "asked_by": change.who}
        journal.admin(broker, tx, who=admin.who, act="approval.reopen", facts=told)


def finish(broker: Broker, number: str, status: int, said: Any) -> None:
    """Keep what came of an approved change: the status and, of a failure, the reason."""
    outcome = {"status": status, "detail": "" if status < 300 else str(said)[:_MAX_OUTCOME]}
    with broker.store.write() as tx:
        pending.finish(tx, number, json.dumps(outcome))


def forget(tx: Connection, broker: Broker, who: str) -> None:
    """Reject what a removed admin asked for."""
    pending.reject_of(tx, who, "removed", broker.clock())


def facts(found: Approval) -> dict[str, Any]:
    """What may be known of a change without its content."""
    return {
        "approval": found.id,
        "tenant": found.tenant,
        "act": found.act,
        "digest": found.digest,
        "who": found.who,
        "state": found.state,
        "created": found.created,
        "expires": found.expires,
        "decider": found.decider,
        "decided": found.decided,
        "outcome": json.loads(found.outcome) if found.outcome else None,
    }


def sweep(broker: Broker) -> None:
    """Drop what expired and forget what is old; nothing due, nothing is written."""
    now = broker.clock()
    with broker.store.read() as tx:
        due = pending.any_over(tx, now)
    if due:
        with broker.store.write() as tx:
            pending.expire(tx, now)


def _demand_room(tx: Connection, change: Change) -> None:
    for who, most in ((None, MAX_WAITING), (change.who, MAX_ASKED)):
        if pending.waiting(tx, change.tenant, who) >= most:
            raise Conflicting.because(
                "approval.waiting",
                expected=f"fewer than {most} changes that wait" + (" for one admin" if who else ""),
                found=str(most),
                hint="approve or reject some of them",
            )


def _demand_shown(change: Change) -> None:
    most = _MAX_SECRET if change.act.startswith(_SECRET) else _MAX_SHOWN
    if len(change.body) > most:
        raise Malformed(
            f"a change under the two-person rule has at most {most} bytes, as its approver must see all of it"
        )


def _opened(broker: Broker, number: str, admin: Admin) -> tuple[Approval, Change | None]:
    """A change that an admin may see; its content is gone once it was decided or expired."""
    with broker.store.read() as tx:
        found = pending.get(tx, number[:32])
    if found is None or not admin.sees(found.tenant):
        raise Missing("no change of that id waits", hint="casemate approval list")
    if not found.sealed:
        return found, None
    kept = broker.vault.open(_label(found.id), found.sealed)
    if pins.digest(kept) != found.digest:
        raise Missing("the change that was kept is not the one that was asked for")
    return found, msgspec.json.decode(kept, type=Change)


def _demand_other(found: Approval, admin: Admin) -> None:
    if admin.who == found.who:
        raise Refused.because(
            "approval.other", expected="another owner than who asked", found="the same", hint="ask another owner"
        )


def _demand_own(tx: Connection, broker: Broker, change: Change, admin: Admin) -> None:
    """One of the two must be the tenant's own: an owner of the broker makes other owners of it without asking.

    Where a tenant has no owner of its own nobody else is there to ask.
    """
    nobody = not accounts.owners(tx, change.tenant, own=True) and not broker.access.issuers
    if change.tenant in (admin.tenant, change.scope) or nobody:
        return
    raise Refused.because(
        "approval.other",
        expected="an owner of the tenant, as who asked is the whole broker's",
        found="another owner of the whole broker",
        hint="ask an owner of the tenant",
    )


def _demand_still(tx: Connection, change: Change) -> None:
    """Who asked must have the rights still, where this broker keeps them."""
    found = accounts.admin_named(tx, change.who)
    recorded = change.who == INIT or change.who.startswith(("key#", "certificate#"))
    if (found is None and recorded and change.who != INIT) or (
        found is not None and (RANK.get(found.role, 0) < RANK[change.role] or found.tenant != change.scope)
    ):
        raise Refused.because(
            "approval.rights", expected="an admin with the rights of then", found="fewer rights", hint="ask again"
        )


def _decide(tx: Connection, broker: Broker, found: Approval, state: str, admin: Admin) -> None:
    if not pending.decide(tx, found.id, state, admin.who, broker.clock()):
        raise _over()


def _over() -> Refused:
    return Conflicting.because(
        "approval.state",
        expected="a change that waits",
        found="one that was decided or has expired",
        hint="casemate approval list",
    )


def _label(number: str) -> str:
    return f"approval:{number}"
