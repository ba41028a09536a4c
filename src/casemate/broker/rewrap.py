"""A change of the master key while the broker serves: every sealed value is wrapped anew, some at a time.

Values themselves are not touched, only the wrapping of their data keys. Each step stands alone and is durable, so the
work can stop anywhere and go on later; meanwhile both master keys open.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from casemate.broker import journal
from casemate.broker.vault import MAGICS
from casemate.drivers.store import rewrap as stored
from casemate.errors import CasemateError, Malformed, Unavailable

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from casemate.broker.assemble import Broker

MOST = 1000


def state(broker: Broker) -> dict[str, Any]:
    """The master keys, the one that seals first, and how many values are sealed under each."""
    with broker.store.read() as tx:
        found = stored.counts(tx, MAGICS)
    held = {key.ident: key.kind for key in broker.vault.masters}
    counted: dict[bytes, int] = {}
    for head, number in found.items():
        counted[head[4:]] = counted.get(head[4:], 0) + number
    masters = [{"id": i.hex(), "kind": kind, "values": counted.pop(i, 0)} for i, kind in held.items()]
    unknown = [{"id": i.hex(), "kind": "unknown", "values": number} for i, number in counted.items()]
    return {"masters": masters, "unknown": unknown}


def step(broker: Broker, after: str, limit: int, *, who: str) -> dict[str, Any]:
    """Wrap the next values anew: how many, which could not be, and where to go on (`after`; empty at the end)."""
    if not 1 <= limit <= MOST:
        raise Malformed(f"limit: 1 to {MOST}")
    broker.vault.reload()  # the settings may name the new master key since a moment ago
    present = broker.vault.head
    heads = [magic + key.ident for magic in MAGICS for key in broker.vault.masters]
    with broker.store.read() as tx:
        found = stored.batch(tx, [head for head in heads if head != present], _place(after), limit)
    changes, failed = [], []
    for value in found:
        try:
            fresh = broker.vault.rewrap(value.label, value.sealed)
        except Unavailable:
            raise  # the token or the service is away: nothing is wrong with the value
        except CasemateError as error:
            failed.append({"where": " ".join([value.table, *map(str, value.key)]), "error": str(error)})
            continue
        if fresh is not None:
            changes.append((value, fresh))

    def act(tx: Connection) -> int:
        done = stored.replace(tx, changes)
        if done:
            journal.admin(broker, tx, who=who, act="master.rewrap", facts={"count": done, "master": present[4:].hex()})
        return done

    done = broker.store.written(act) if changes else 0
    last = json.dumps([found[-1].table, *found[-1].key]) if len(found) == limit else ""
    return {"master": present[4:].hex(), "rewrapped": done, "failed": failed, "after": last}


def _place(after: str) -> Sequence[Any]:
    if not after:
        return []
    try:
        found = json.loads(after)
    except (ValueError, RecursionError):
        found = None
    tables = {
        table.name: [column.type.python_type for column in table.primary_key.columns] for table in stored.tables()
    }
    kinds = tables.get(found[0]) if isinstance(found, list) and found and isinstance(found[0], str) else None
    if not kinds or [type(part) for part in found[1:]] != kinds or not all(map(_storable, found[1:])):
        raise Malformed("after: what the step before answered is wanted")
    return list(found)


def _storable(part: str | int) -> bool:
    return part.isprintable() if isinstance(part, str) else 0 <= part < 1 << 63
