"""Reading the log: what everybody may fetch of it, receipts for who knows their id, periods for auditors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from casemate.broker.refusals import Missing
from casemate.drivers.store import log as entries
from casemate.errors import Malformed
from casemate.ledger import entry as papers
from casemate.ledger import history, merkle, note, tiles
from casemate.ledger.receipt import Opening, Receipt, is_id

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from casemate.broker.log import Log
    from casemate.drivers.store import Store

MAX_PERIOD = 1000


class Holder(Protocol):
    """Whoever has a log: a broker, or its store and log alone."""

    @property
    def store(self) -> Store:
        """Where the log lies."""

    @property
    def log(self) -> Log:
        """What opens its entries."""


def checkpoint(broker: Holder) -> str:
    """The newest checkpoint, a signed note."""
    with broker.store.read() as tx:
        return _state(tx).checkpoint


def keys(broker: Holder) -> history.History:
    """The log's origin and its keys."""
    with broker.store.read() as tx:
        found = entries.keys(tx)
    if found is None:
        raise Missing("this broker has no log")
    return found


def tile(broker: Holder, level: int | None, number: int, width: int) -> bytes:
    """A tile of that width, or with level None a bundle of entries; `Missing` when the log is not that long."""
    with broker.store.read() as tx:
        size = _state(tx).size
        if tiles.width_at(level or 0, number, size) < width:
            raise Missing("the log is not that long", hint="ask for a narrower tile, or for the checkpoint first")
        if level is None:
            return tiles.bundle(entries.entries(tx, number * tiles.WIDTH, width))
        return entries.tile(tx, level, number)[: width * merkle.SIZE]


def receipt(broker: Holder, number: str) -> Receipt:
    """The receipt of that id, proved below the newest checkpoint. Who knows the id may have it."""
    with broker.store.read() as tx:
        found = entries.opened(tx, number) if is_id(number) else None
        if found is None:
            raise Missing("no such receipt", hint="its id stands in the header Casemate-Receipt of a grant")
        (made,) = _proved(broker, tx, [found])  # the state is read after the entry, so it is never too short for it
    return made


def period(
    broker: Holder,
    since: int,
    until: int,
    *,
    after: int = -1,
    limit: int = MAX_PERIOD,
    app_id: str | None = None,
    tenant: str | None = None,
) -> list[Receipt]:
    """Receipts of entries of a time (milliseconds, `until` excluded) above number `after`, in the log's order."""
    if not 0 <= since <= until < papers.MAX_TIME or not 1 <= limit <= MAX_PERIOD or not -1 <= after < merkle.MAX_SIZE:
        raise Malformed(f"period: since and until are times, the limit is at most {MAX_PERIOD}")
    with broker.store.read() as tx:
        found = entries.period(tx, since=since, until=until, after=after, limit=limit, app_id=app_id, tenant=tenant)
        return _proved(broker, tx, found)


def extends(broker: Holder, earlier: note.Checkpoint) -> bool:
    """Whether this store's log still holds what a checkpoint said: its entries were only added to."""
    with broker.store.read() as tx:
        state = _state(tx)
        if earlier.origin != state.origin or earlier.size > state.size:
            return False
        return merkle.root(earlier.size, tiles.nodes(entries.reader(tx))) == earlier.root


def _proved(broker: Holder, tx: Connection, found: list[entries.Opened]) -> list[Receipt]:
    state, node = _state(tx), tiles.nodes(entries.reader(tx))
    made = []
    for one in found:
        salt, fields = broker.log.opened(one.id, one.sealed)
        openings = {name: Opening(papers.field_salt(salt, name), value) for name, value in fields.items()}
        proof = tuple(merkle.inclusion(one.number, state.size, node))
        made.append(Receipt(one.id, one.entry, one.number, openings, proof, state.checkpoint))
    return made


def _state(tx: Connection) -> entries.State:
    found = entries.state(tx)
    if found is None:
        raise Missing("this broker has no log")
    return found
