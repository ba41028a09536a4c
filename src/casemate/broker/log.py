"""The transparency log of a broker: what is decided or changed is an entry before anything of it leaves.

Decisions come in through `record`, many at a time in one transaction (`drivers/store/writer.py`); acts of admins by
`admin`, in the transaction of the act. Refusals before evidence is genuine are only counted: one entry a minute holds
them all, so strangers can't grow the log.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Connection, Table, exc

from casemate.broker import opening
from casemate.broker.shared import shared
from casemate.broker.vault import KEY_SIZE, Vault
from casemate.drivers.store import AlreadySpent, Store, record
from casemate.drivers.store import log as entries
from casemate.drivers.store.quick import Quick
from casemate.drivers.store.registry import millis
from casemate.drivers.store.writer import Work, Writer
from casemate.errors import Malformed, Refused, Unavailable, Unusable
from casemate.ledger import entry as papers
from casemate.ledger import history, merkle, note, tiles

SUMMARY = "refusals"
MAX_COUNTED = 256
_TRIM_EVERY = 100
_FORGET_EVERY = timedelta(seconds=10)


class Decision(NamedTuple):
    """What one request leaves: a line of the journal, an entry unless strangers caused it, a nonce, rows of others."""

    row: dict[str, Any]
    entry: entries.Pending | None
    spends: record.Ticket | None = None
    rows: Sequence[tuple[Table, dict[str, Any]]] = ()
    together: Callable[[Connection], None] | None = None


class _Kept(NamedTuple):
    """What a transaction does to the counts; it holds once that is on disk."""

    counts: dict[tuple[int, str, str], int]  # those that are in the store then
    open: int | None
    looked: int | None


class Key:
    """A log key; its notes begin with the log's origin, which is its name."""

    def __init__(self, key: ed25519.Ed25519PrivateKey, origin: str) -> None:
        self.verifier, self._key = verifier(origin, key), key

    def sign(self, text: str) -> str:
        """The note of a checkpoint's text."""
        return note.sign(text, self.verifier.name, self.verifier.public, self._key.sign(text.encode()))


class Log:
    """The log on one store; every replica has one of these, and the store's lock puts them in turn."""

    def __init__(self, store: Store, vault: Vault, key: bytes, clock: Callable[[], datetime]) -> None:
        self.store, self.clock = store, clock
        self._vault, self._openings = vault, AESGCM(key)
        self._keys: dict[str, Key] = {}
        self._counts: dict[tuple[int, str, str], int] = {}
        self._guard = threading.Lock()
        self._open: int | None = None  # a minute whose counts stand in the store and are no entry yet
        self._looked: int | None = None
        self._kept: _Kept | None = None  # of the transaction under way; used by who writes it alone
        self._ungenuine = 0
        self._forgot: datetime | None = None
        self._edge = entries.Edge()  # used under the store's lock alone
        self._writer: Writer[Decision] = Writer(store, self._commit, self._tick, self._committed)

    def pending(
        self,
        kind: str,
        moment: datetime,
        allowed: bool | None,
        fields: dict[str, Any],
        *,
        app_id: str | None = None,
        tenant: str | None = None,
    ) -> entries.Pending:
        """An entry that was not appended yet, its openings sealed. A field of None is left out."""
        number, salt, time = os.urandom(16).hex(), os.urandom(papers.SALT_SIZE), millis(moment)
        told = {"id": number, **{name: value for name, value in fields.items() if value is not None}}
        sealed = opening.seal(self._openings, number, salt, told)
        made = papers.make(kind, time, allowed, told, salt)
        return entries.Pending(number, made, time, kind, app_id, tenant, sealed)

    def opened(self, receipt: str, sealed: bytes) -> tuple[bytes, dict[str, Any]]:
        """The salt and the fields of a receipt."""
        return opening.open_(self._openings, receipt, sealed)

    def record(self, decision: Decision) -> None:
        """Write a decision durably; `AlreadySpent` when its nonce was used. Never inside a transaction."""
        self._writer.submit(decision)

    def begin(self, decision: Decision) -> Work[Decision]:
        """Hand a decision to the writer; `casemate.broker.held` waits for it."""
        return self._writer.begin(decision)

    def admin(self, tx: Connection, pending: entries.Pending) -> None:
        """Append one entry in a transaction that is under way; the last thing that it does."""
        entries.append(tx, entries.lock(tx), [pending], self.sign, self.clock(), edge=self._edge)

    def count(self, act: str, rules: Collection[str]) -> None:
        """Count a refusal before evidence was genuine; nothing is written now."""
        minute = millis(self.clock()) // entries.MINUTE
        with self._guard:
            first = not self._counts
            for rule in rules:
                known = (minute, act, rule) in self._counts or len(self._counts) < MAX_COUNTED
                name = (minute, act, rule) if known else (minute, "other", "other")
                self._counts[name] = self._counts.get(name, 0) + 1
        if first:
            self._writer.wake()

    def alive(self) -> bool:
        """Whether what is decided now would be written."""
        return self._writer.alive()

    def close(self) -> None:
        """Write what waits, and keep the counts."""
        self._writer.close()
        if self._counts:
            with contextlib.suppress(Unavailable), self.store.write() as tx:
                entries.lock(tx)
                taken = self._keep_counts(tx)
            self._kept = _Kept(taken, self._open, self._looked)
            self._committed()

    def sign(self, tx: Connection, name: str, text: str) -> str:
        """A signed note under the shared key of that name, which another replica may have made a moment ago."""
        if name not in self._keys:
            sealed = record.key(tx, name)
            if sealed is None:
                raise Unusable(f"the log's key {name} is not in the store", hint="restore the store from its backup")
            self._keys[name] = Key(private(self._vault.open(f"key:{name}", sealed)), text.partition("\n")[0])
        return self._keys[name].sign(text)

    def rotate(self, tx: Connection) -> str:
        """End the log's key and begin the next one, in a transaction that is under way; returns its vkey."""
        was, moment, raw = entries.lock(tx), self.clock(), os.urandom(KEY_SIZE)
        name = f"log.{millis(moment)}.{os.urandom(4).hex()}"
        record.add_key(tx, name, self._vault.seal(f"key:{name}", raw), moment)
        self._keys[name] = Key(private(raw), was.origin)
        vkey = self._keys[name].verifier.text()
        entries.change_key(tx, was, name, vkey, sign=self.sign, now=moment)
        return vkey

    def _commit(self, tx: Connection, batch: Sequence[Work[Decision]]) -> None:
        self._kept = None
        now, state = self.clock(), entries.lock(tx)
        told = self._admitted(tx, batch)
        tickets = [d.spends for d in told if d.spends is not None]
        record.spend_all(tx, tickets, now, forget=self._forgets(now))
        record.add(tx, [d.row for d in told])
        for table, columns, values in _grouped(told):
            Quick(tx).insert(table, columns, values)
        self._ungenuine += sum(d.entry is None for d in told)
        if self._ungenuine >= _TRIM_EVERY:
            record.trim(tx)
            self._ungenuine = 0
        pending = [d.entry for d in told if d.entry is not None]
        entries.append(tx, state, [*pending, *self._minutes(tx, now)], self.sign, now, edge=self._edge)

    def _forgets(self, now: datetime) -> bool:
        """Whether old nonces are to be forgotten again; not in every transaction."""
        if self._forgot is not None and abs(now - self._forgot) < _FORGET_EVERY:
            return False
        self._forgot = now
        return True

    def _admitted(self, tx: Connection, batch: Sequence[Work[Decision]]) -> list[Decision]:
        """The decisions that can stand; the others are told why at once."""
        used = record.used(tx, [w.what.spends.nonce for w in batch if w.what.spends is not None])
        told: list[Decision] = []
        for work in batch:
            nonce = work.what.spends.nonce if work.what.spends is not None else None
            if nonce is not None and nonce in used:
                work.error = AlreadySpent("the nonce was used before")
                continue
            if work.what.together is not None:
                try:
                    with tx.begin_nested():
                        work.what.together(tx)
                except Exception as error:  # noqa: BLE001 - it belongs to that caller and to no other
                    work.error = error
                    continue
            if nonce is not None:
                used.add(nonce)
            told.append(work.what)
        return told

    def _minutes(self, tx: Connection, now: datetime) -> list[entries.Pending]:
        """Keep the counts at hand; make entries of the minutes that are over."""
        minute, taken = millis(now) // entries.MINUTE, self._keep_counts(tx)
        minutes = {at for at, _, _ in taken} | ({self._open} if self._open is not None else set())
        if self._looked == minute and all(at >= minute for at in minutes):
            self._kept = _Kept(taken, max(minutes, default=None), minute)
            return []
        self._kept = _Kept(taken, max((at for at in minutes if at >= minute), default=None), minute)
        return [
            self.pending(SUMMARY, now, False, {"minute": history.text(at * entries.MINUTE), "counts": counts})
            for at, counts in entries.counted(tx, minute)
        ]

    def _keep_counts(self, tx: Connection) -> dict[tuple[int, str, str], int]:
        """Add the counts at hand to the store's; they stay at hand until `_committed`."""
        with self._guard:
            taken = dict(self._counts)
        for minute in sorted({minute for minute, _, _ in taken}):
            entries.count(tx, minute, {(act, rule): n for (at, act, rule), n in taken.items() if at == minute})
        return taken

    def _committed(self) -> None:
        """The transaction is on disk: its counts are not at hand any more. Others came meanwhile."""
        kept, self._kept = self._kept, None
        if kept is None:
            return
        self._open, self._looked = kept.open, kept.looked
        with self._guard:
            for name, number in kept.counts.items():
                self._counts[name] -= number
                if not self._counts[name]:
                    del self._counts[name]

    def _tick(self) -> float | None:
        """Write a minute's entry when it is over, though nobody asks for anything."""
        with self._guard:
            waiting = [self._open, *(minute for minute, _, _ in self._counts)]
        minutes = [minute for minute in waiting if minute is not None]
        if not minutes:
            return None
        now = millis(self.clock())
        if min(minutes) < now // entries.MINUTE:
            with self.store.write() as tx:
                self._commit(tx, ())
            self._committed()
            return self._tick() if self._open is not None else None
        return (entries.MINUTE - now % entries.MINUTE) / 1000 + 0.05


def build(store: Store, vault: Vault, clock: Callable[[], datetime]) -> Log:
    """The log of a store, begun when there is none. `Unusable` when what is there does not fit together."""
    key = shared(store, vault, "log.openings", lambda: os.urandom(KEY_SIZE), clock())
    made = Log(store, vault, key, clock)
    with store.read() as tx:
        known = entries.state(tx)
    if known is None:
        _begin(made, store, private(shared(store, vault, "log", lambda: os.urandom(KEY_SIZE), clock())))
    with store.read() as tx:
        demand_sound(tx)
    return made


def demand_sound(tx: Connection) -> None:
    """Refuse a store whose log does not fit its own checkpoint; reads a few tiles, however long the log is."""
    state, known = entries.state(tx), entries.keys(tx)
    try:
        if state is None or known is None:
            raise Malformed("log: the store has none")
        text, _ = note.open_note(state.checkpoint, known.verifiers)
        found = note.parse_checkpoint(text)
        node = tiles.nodes(entries.reader(tx))
        last = [merkle.leaf(entry) for entry in entries.entries(tx, state.size - 1, 1)]
        good = (found.size, found.root) == (state.size, state.root) and merkle.peaks(state.size, node) == state.peaks
        if not good or last != ([node(0, state.size - 1)] if state.size else []):
            raise Malformed("log: tiles, state and checkpoint differ")
    except (Malformed, Refused) as error:
        raise Unusable(f"the store's log is damaged: {error}", hint="restore the store from a backup") from error


def private(raw: bytes) -> ed25519.Ed25519PrivateKey:
    """A log key from its 32 bytes."""
    return ed25519.Ed25519PrivateKey.from_private_bytes(raw)


def verifier(origin: str, key: ed25519.Ed25519PrivateKey) -> note.Verifier:
    """The public part of a log key; its name is the log's origin."""
    raw = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return note.Verifier(origin, raw)


def _begin(log: Log, store: Store, key: ed25519.Ed25519PrivateKey) -> None:
    origin = f"casemate-log/{os.urandom(8).hex()}"
    try:
        with store.write() as tx:
            entries.found(tx, origin, "log", verifier(origin, key).text(), sign=log.sign, now=log.clock())
    except exc.IntegrityError:
        return  # another replica was first


def _grouped(told: Sequence[Decision]) -> list[tuple[Table, tuple[str, ...], list[list[Any]]]]:
    """The rows of others by table and columns."""
    found: dict[tuple[Table, tuple[str, ...]], list[list[Any]]] = {}
    for decision in told:
        for table, values in decision.rows:
            columns = tuple(sorted(values))
            found.setdefault((table, columns), []).append([values[name] for name in columns])
    return [(table, columns, rows) for (table, columns), rows in found.items()]
