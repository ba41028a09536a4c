"""Keys that replicas share and that follow each other: one is in use, its predecessors serve out, its successor waits.

Rules
1. A new key is published `LEAD` seconds before it is used: by then every replica and every reader of the key set has
   it. Replicas look for new keys every `FRESH` seconds, and at once for a key that they do not know.
2. A key that was replaced is believed for `KEEP` seconds, longer than anything lives that it signed or sealed.
3. Revoking forgets the predecessors at once: what they signed or sealed is worth nothing afterwards, at any replica
   (`sessions.demand_key` asks the store).
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import Connection, exc

from casemate.broker import journal
from casemate.broker.refusals import Conflicting
from casemate.broker.shared import label, shared
from casemate.broker.vault import Vault
from casemate.drivers.store import Store, record, successions
from casemate.drivers.store.registry import millis, moment

if TYPE_CHECKING:
    from casemate.broker.assemble import Broker

LEAD = 30
FRESH, AGAIN = 10.0, 1.0
KEEP = timedelta(hours=2)


class Shared(NamedTuple):
    """One key: its name in the store, since (or from) when it is used, its secret."""

    name: str
    begun: datetime
    secret: bytes


class Keyring:
    """The keys of one kind. Safe for threads."""

    def __init__(
        self, store: Store, vault: Vault, kind: str, make: Callable[[], bytes], clock: Callable[[], datetime]
    ) -> None:
        self.kind, self.make = kind, make
        self._store, self._vault, self._clock = store, vault, clock
        self._lock = threading.Lock()
        self._keys: tuple[Shared, ...] = ()
        with store.read() as tx:
            begun = bool(successions.listing(tx, kind))
        if not begun:
            shared(store, vault, kind, make, clock())
            store.written(lambda tx: successions.begin(tx, kind, clock()))
        self.reload()

    def all(self) -> tuple[Shared, ...]:
        """Every key that counts or will count, oldest first."""
        if time.monotonic() - self._loaded > FRESH:
            self.refresh()
        keys = self._keys
        if len(keys) == 1:
            return keys
        edge = self._clock() - KEEP
        ends = [*(key.begun for key in keys[1:]), None]
        return tuple(key for key, end in zip(keys, ends, strict=True) if end is None or end > edge)

    def current(self) -> Shared:
        """The key in use."""
        found, now = self.all(), self._clock()
        return next((key for key in reversed(found) if key.begun <= now), found[0])

    def refresh(self) -> bool:
        """Look for new keys; False when somebody does already, or did a moment ago."""
        if time.monotonic() - self._loaded < AGAIN or not self._lock.acquire(blocking=False):
            return False
        try:
            self._load()
        finally:
            self._lock.release()
        return True

    def reload(self) -> None:
        """Read the keys anew."""
        with self._lock:
            self._load()

    def _load(self) -> None:
        known = {key.name: key for key in self._keys}
        found = []
        with self._store.read() as tx:
            for name, begun in successions.listing(tx, self.kind):
                sealed = None if name in known else record.key(tx, name)
                if name in known:
                    found.append(known[name])
                elif sealed is not None:
                    found.append(Shared(name, moment(begun), self._vault.open(label(name), sealed)))
        self._keys, self._loaded = tuple(found), time.monotonic()


def rotate(broker: Broker, *, lead: int, revoke: bool, who: str) -> dict[str, str]:
    """Give every keyring a new key, used from `lead` seconds on; with `revoke` at once and alone. Returns their names.

    `Conflicting` when a new key waits already.
    """
    now = broker.clock()
    begun = now + timedelta(seconds=0 if revoke else lead)
    made: dict[str, str] = {}

    def act(tx: Connection) -> None:
        for ring in broker.keyrings:
            made[ring.kind] = _succeed(tx, broker, ring, now, begun, revoke=revoke)
        facts = {"keys": sorted(made.values()), "begins": millis(begun), "revoked": revoke}
        journal.admin(broker, tx, who=who, act="key.rotate", facts=facts)

    try:
        with broker.store.write() as tx:
            act(tx)
    except exc.IntegrityError:
        raise _waits() from None
    for ring in broker.keyrings:
        ring.reload()
    return made


def _succeed(tx: Connection, broker: Broker, ring: Keyring, now: datetime, begun: datetime, *, revoke: bool) -> str:
    there = successions.listing(tx, ring.kind)
    if not revoke and there and there[-1][1] > millis(now):
        raise _waits()
    for place, (name, _) in enumerate(there):
        ended = there[place + 1][1] if place + 1 < len(there) else None
        if revoke or (ended is not None and ended < millis(now - KEEP)):
            successions.forget(tx, name)
    name = f"{ring.kind}-{secrets.token_hex(8)}"
    record.add_key(tx, name, broker.vault.seal(label(name), ring.make()), now)
    successions.add(tx, name, begun, now)
    return name


def _waits() -> Conflicting:
    return Conflicting.because(
        "key.waits",
        expected="a rotation that is over",
        found="a new key that is not in use yet",
        hint=f"try again in {LEAD} seconds, or revoke",
    )
