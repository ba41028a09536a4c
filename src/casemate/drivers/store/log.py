"""The log in the store: entries, tiles, state. Appending is one step inside whatever transaction has something to log.

Rules
1. `lock` first: the state's row is the sequencer's seat (SQLite: the write transaction itself; PostgreSQL: FOR UPDATE).
2. `append` writes entries, openings, tiles, state and signed checkpoint, or the transaction leaves nothing of them.
3. Nothing here updates or deletes an entry or a full tile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, delete, func, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from casemate.drivers.store import tables
from casemate.drivers.store import tables_log as t
from casemate.drivers.store.quick import Quick
from casemate.drivers.store.registry import millis
from casemate.errors import Malformed
from casemate.ledger import history, merkle, note, tiles

ROW = 1
MINUTE = 60_000
_STATE = 'SELECT origin, size, peaks, "key", checkpoint, "time" FROM log_state WHERE id = ?'
_ADVANCE = 'UPDATE log_state SET size = ?, peaks = ?, "key" = ?, checkpoint = ?, "time" = ? WHERE id = ?'
_TILE = 'SELECT hashes FROM log_tiles WHERE "level" = ? AND "number" = ?'
_GROW = 'UPDATE log_tiles SET hashes = ? WHERE "level" = ? AND "number" = ?'
_COUNTED = 256  # kinds of refusals in one minute's entry


class State(NamedTuple):
    """The log as it stands; `key` names the shared key that signs, `time` is that of the checkpoint (milliseconds)."""

    origin: str
    size: int
    peaks: tuple[bytes, ...]
    key: str
    checkpoint: str
    time: int

    @property
    def root(self) -> bytes:
        """The root that the checkpoint signs."""
        return merkle.crown(self.peaks)


class Pending(NamedTuple):
    """An entry that is to be appended, with what opens it, sealed. `time` in milliseconds."""

    id: str
    entry: bytes
    time: int
    kind: str
    app_id: str | None
    tenant: str | None
    sealed: bytes


class Opened(NamedTuple):
    """What the store has of one receipt."""

    id: str
    number: int
    entry: bytes
    sealed: bytes


class Edge:
    """The right edge of the tree as it was appended last here; of use while nobody else appended since."""

    def __init__(self) -> None:
        self._at: tuple[int, bytes] | None = None
        self._tiles: dict[tuple[int, int], bytes] = {}

    def at(self, state: State) -> dict[tuple[int, int], bytes]:
        """The tiles that are known of this state: none when another replica appended, or this one was rolled back."""
        return dict(self._tiles) if self._at == (state.size, state.root) else {}

    def keep(self, state: State, known: dict[tuple[int, int], bytes]) -> None:
        """Remember the partial tiles of this state."""
        partial = {level: (level, state.size >> tiles.HEIGHT * (level + 1)) for level in range(tiles.MAX_LEVEL + 1)}
        self._tiles = {place: known[place] for place in partial.values() if place in known}
        self._at = (state.size, state.root)


Sign = Callable[[Connection, str, str], str]
"""The signed note of a text, by the shared key of that name; asked within the transaction."""


def found(tx: Connection, origin: str, key: str, vkey: str, *, sign: Sign, now: datetime) -> None:
    """Begin a log; an IntegrityError tells that another replica was first."""
    tx.execute(insert(t.log_keys).values(name=key, vkey=vkey, begun=millis(now), ended=None))
    signed = sign(tx, key, note.Checkpoint(origin, 0, merkle.EMPTY).text())
    values = {"origin": origin, "size": 0, "peaks": b"", "key": key, "checkpoint": signed, "time": millis(now)}
    tx.execute(insert(t.log_state).values(id=ROW, **values))


def state(tx: Connection, *, lock: bool = False) -> State | None:
    """The log's state, None where no log was begun; with `lock` nobody else appends until the transaction ends."""
    found = Quick(tx).rows(_STATE + (" FOR UPDATE" if lock and tx.dialect.name != "sqlite" else ""), ROW)
    if not found:
        return None
    origin, size, raw, key, checkpoint, time = found[0]
    peaks = tuple(raw[i : i + merkle.SIZE] for i in range(0, len(raw), merkle.SIZE))
    return State(origin, size, peaks, key, checkpoint, time)


def lock(tx: Connection) -> State:
    """The state, locked for appending."""
    locked = state(tx, lock=True)
    if locked is None:
        raise Malformed("log: the store has none")
    return locked


def append(
    tx: Connection, now: State, pending: Sequence[Pending], sign: Sign, moment: datetime, *, edge: Edge | None = None
) -> State:
    """Add entries to the locked log; returns its new state. `edge` spares reading what was written last."""
    if not pending:
        return now
    leaves = [merkle.leaf(one.entry) for one in pending]
    quick, known = Quick(tx), edge.at(now) if edge is not None else {}
    for level, number, hashes in tiles.appended(now.size, leaves, reader(tx, known)):
        known[level, number] = hashes
        if tiles.width_at(level, number, now.size):
            quick.run(_GROW, hashes, level, number)
        else:
            quick.insert(t.log_tiles, ("level", "number", "hashes"), [(level, number, hashes)])
    numbered = list(enumerate(pending, now.size))
    quick.insert(t.log_entries, ("number", "entry"), [(n, one.entry) for n, one in numbered])
    opened = [(n, one.id, one.time, one.kind, one.app_id, one.tenant, one.sealed) for n, one in numbered]
    quick.insert(t.log_openings, ("number", "id", "time", "kind", "app_id", "tenant", "sealed"), opened)
    grown = now._replace(size=now.size + len(leaves), peaks=merkle.extended(now.size, now.peaks, leaves))
    made = _signed(tx, now, grown, sign, moment)
    if edge is not None:
        edge.keep(made, known)
    return made


def _signed(tx: Connection, was: State, grown: State, sign: Sign, moment: datetime) -> State:
    signed = sign(tx, grown.key, note.Checkpoint(grown.origin, grown.size, grown.root).text())
    made = grown._replace(checkpoint=signed, time=millis(moment))
    Quick(tx).run(_ADVANCE, made.size, b"".join(made.peaks), made.key, signed, made.time, ROW)
    if made.size > was.size and made.time // MINUTE != was.time // MINUTE:
        tx.execute(insert(t.log_checkpoints).values(size=made.size, time=made.time, note=signed))
    return made


def reader(tx: Connection, known: dict[tuple[int, int], bytes] | None = None) -> tiles.Read:
    """Tiles from the store, each asked for once; `known` are those that are at hand."""
    known = {} if known is None else known

    def read(level: int, number: int) -> bytes:
        if (level, number) not in known:
            known[level, number] = tile(tx, level, number)
        return known[level, number]

    return read


def tile(tx: Connection, level: int, number: int) -> bytes:
    """The hashes of a tile as far as it is filled; empty when there is none."""
    found = Quick(tx).rows(_TILE, level, number)
    return bytes(found[0][0]) if found else b""


def entries(tx: Connection, start: int, count: int) -> list[bytes]:
    """Up to `count` entries from number `start` on."""
    c = t.log_entries.c
    query = select(c.entry).where(c.number >= start, c.number < start + count).order_by(c.number)
    return [bytes(entry) for entry in tx.execute(query).scalars()]


def opened(tx: Connection, receipt: str) -> Opened | None:
    """The entry of a receipt and its sealed openings."""
    row = tx.execute(_opened().where(t.log_openings.c.id == receipt)).one_or_none()
    return None if row is None else Opened(row.id, row.number, bytes(row.entry), bytes(row.sealed))


def period(
    tx: Connection,
    *,
    since: int,
    until: int,
    after: int,
    limit: int,
    app_id: str | None = None,
    tenant: str | None = None,
) -> list[Opened]:
    """Entries of a time (milliseconds, `until` excluded) with a number above `after`, in order, at most `limit`.

    With `tenant` those of that tenant's apps and those that name the tenant.
    """
    c = t.log_openings.c
    query = _opened().where(c.time >= since, c.time < until, c.number > after).order_by(c.number).limit(limit)
    if app_id is not None:
        query = query.where(c.app_id == app_id)
    if tenant is not None:
        own = select(tables.apps.c.app_id).where(tables.apps.c.tenant == tenant)
        query = query.where(or_(c.tenant == tenant, c.app_id.in_(own)))
    return [Opened(r.id, r.number, bytes(r.entry), bytes(r.sealed)) for r in tx.execute(query)]


def _opened() -> Select[Any]:
    o, e = t.log_openings.c, t.log_entries.c
    joined = t.log_openings.join(t.log_entries, o.number == e.number)
    return select(o.id, o.number, e.entry, o.sealed).select_from(joined)


def keys(tx: Connection) -> history.History | None:
    """Whose log it is: origin and keys, oldest first; None where no log was begun."""
    origin = tx.execute(select(t.log_state.c.origin)).scalar_one_or_none()
    if origin is None:
        return None
    c = t.log_keys.c
    rows = tx.execute(select(c.vkey, c.begun, c.ended).order_by(c.begun, c.name))
    return history.History(origin, tuple(history.Key(note.Verifier.parse(r.vkey), r.begun, r.ended) for r in rows))


def change_key(tx: Connection, was: State, key: str, vkey: str, *, sign: Sign, now: datetime) -> State:
    """End the key of the locked log and go on under another one, which signs the checkpoint at once."""
    moment = max(millis(now), was.time)  # another replica's clock may be ahead, and it signed in good faith
    tx.execute(update(t.log_keys).where(t.log_keys.c.name == was.key).values(ended=moment))
    tx.execute(insert(t.log_keys).values(name=key, vkey=vkey, begun=moment, ended=None))
    return _signed(tx, was, was._replace(key=key), sign, now)


def count(tx: Connection, minute: int, counts: dict[tuple[str, str], int]) -> None:
    """Add to a minute's counts of refusals, by act and rule."""
    upsert = sqlite.insert if tx.dialect.name == "sqlite" else postgresql.insert
    for (act, rule), number in sorted(counts.items()):
        made = upsert(t.log_refusals).values(minute=minute, act=act[:32], rule=rule[:64], total=number)
        more = {"total": t.log_refusals.c.total + number}
        tx.execute(made.on_conflict_do_update(index_elements=["minute", "act", "rule"], set_=more))


def counted(tx: Connection, before: int) -> list[tuple[int, dict[str, int]]]:
    """Take out the counts of every minute below `before`: (minute, {"act rule": count}), oldest first."""
    c = t.log_refusals.c
    told: dict[int, dict[str, int]] = {}
    for row in tx.execute(select(t.log_refusals).where(c.minute < before).order_by(c.minute, c.act, c.rule)):
        counts = told.setdefault(row.minute, {})
        name = f"{row.act} {row.rule}" if len(counts) < _COUNTED else "other"
        counts[name] = counts.get(name, 0) + row.total
    if told:
        tx.execute(delete(t.log_refusals).where(c.minute < before))
    return sorted(told.items())


def length(tx: Connection) -> int:
    """How many entries the store really has: for checks, it reads them all."""
    return int(tx.execute(select(func.count()).select_from(t.log_entries)).scalar_one())
