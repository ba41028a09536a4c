"""A store that is older than what was seen of it is not served: it would forget revocations and accept nonces again.

What was seen are signed checkpoints of the log, in files outside the store: one that the broker keeps itself, and those
of witnesses that the settings name. An operator who restores an older store says so by the size of its log; that is an
entry of the log in its turn.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from casemate.broker import journal
from casemate.drivers import keyfiles
from casemate.drivers.store import Store
from casemate.drivers.store import log as entries
from casemate.errors import CasemateError, Finding, Malformed, Refused, Unusable
from casemate.ledger import merkle, note, tiles

if TYPE_CHECKING:
    from casemate.broker.assemble import Broker
    from casemate.broker.settings import Settings

SECONDS = 2.0
ACT = "rollback.accept"
_LIMIT = 64 << 10
_LOG = logging.getLogger("casemate.broker")


class Ahead(NamedTuple):
    """A checkpoint that the store does not lead up to; `size` is how many entries it counts."""

    path: Path
    size: int
    digest: str
    why: str


def behind(settings: Settings, store: Store) -> tuple[int, list[Ahead]]:
    """The size of the store's log, and the checkpoints that it contradicts. A witness's file must be there."""
    with store.read() as tx:
        state, known = entries.state(tx), entries.keys(tx)
        if state is None or known is None:
            raise Unusable("the store has no log", hint="restore the store from a backup")
        node, found = tiles.nodes(entries.reader(tx)), []
        for path, text in _seen(settings):
            digest = hashlib.sha256(text.encode()).hexdigest()
            if digest in _accepted(settings):
                continue
            try:
                signed, _ = note.open_note(text, known.verifiers)
                told = note.parse_checkpoint(signed)
            except (Malformed, Refused) as error:
                found.append(Ahead(path, 0, digest, f"a checkpoint that is none of this log ({error})"))
                continue
            if told.size > state.size:
                found.append(Ahead(path, told.size, digest, f"a log of {told.size} entries"))
            elif merkle.root(told.size, node) != told.root:
                found.append(Ahead(path, told.size, digest, f"other entries among the first {told.size}"))
        return state.size, found


def demand(settings: Settings, store: Store) -> None:
    """Refuse a store that is behind what was seen of it."""
    size, ahead = behind(settings, store)
    if ahead:
        hint = f"restore a newer backup, or accept the loss by name: casemate serve --accept-rollback {size}"
        raise Refused(Finding("log.rollback", one.why, f"{size} entries in the store", hint) for one in ahead)


def accept(broker: Broker, size: int) -> None:
    """Accept a store that is behind, named by its log's size; that is an entry. Nothing where none is behind."""
    settings = broker.settings
    found, ahead = behind(settings, broker.store)
    if not ahead:
        _LOG.info("no rollback to accept")
        return
    if found != size:
        hint = "the size names the store that is meant; casemate serve says it"
        raise Refused.because("log.rollback", expected=f"{size} entries", found=f"{found} entries", hint=hint)
    facts = {"size": found, "seen": max(one.size for one in ahead), "checkpoints": [one.digest for one in ahead][:16]}
    with broker.store.write() as tx:
        journal.admin(broker, tx, who="local", act=ACT, facts=facts)
    known = {*_accepted(settings), *(one.digest for one in ahead)}
    keyfiles.write(_accepted_file(settings), ("\n".join(sorted(known)) + "\n").encode())
    settings.checkpoint_file.unlink(missing_ok=True)
    _LOG.warning("a rollback of the store was accepted", extra={"fields": {"size": found}})


def build(settings: Settings, store: Store, *, demanding: bool) -> Memory:
    """What keeps the store's checkpoint from now on; with `demanding` a store that is behind is refused."""
    if demanding:
        demand(settings, store)
    return Memory(settings, store)


class Memory:
    """Writes the store's newest checkpoint to the broker's own file, every other second and at the end."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._path, self._store = settings.checkpoint_file, store
        self._last = ""
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._run, name="casemate checkpoint", daemon=True)
        self._thread.start()

    def keep(self) -> None:
        """Write it now, if it is newer than what another worker wrote."""
        with self._store.read() as tx:
            state = entries.state(tx)
        if state is None or state.checkpoint == self._last:
            return
        with _locked(self._path):
            if _size(self._path) <= state.size:
                keyfiles.write(self._path, state.checkpoint.encode())
        self._last = state.checkpoint

    def close(self) -> None:
        """Write the last one."""
        self._ending.set()
        if self._thread is None:
            return
        self._thread.join(10)
        with contextlib.suppress(CasemateError, OSError):
            self.keep()

    def _run(self) -> None:
        while not self._ending.wait(SECONDS):
            try:
                self.keep()
            except (CasemateError, OSError) as error:  # the store is away, or the disk is full: next time
                _LOG.warning("the checkpoint was not kept", extra={"fields": {"why": type(error).__name__}})


def _seen(settings: Settings) -> Iterator[tuple[Path, str]]:
    if settings.checkpoint_file.exists():
        yield settings.checkpoint_file, _text(settings.checkpoint_file)
    for path in settings.witness_files:
        yield path, _text(path)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_LIMIT).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Unusable(f"the checkpoint {path} cannot be read", hint="see `witnesses` in broker.toml") from error


def _size(path: Path) -> int:
    """What a file's checkpoint claims; 0 when it is missing or none."""
    try:
        return int(path.read_text("utf-8").split("\n")[1])
    except (OSError, ValueError, IndexError):
        return 0


def _accepted_file(settings: Settings) -> Path:
    return settings.checkpoint_file.with_name(settings.checkpoint_file.name + ".accepted")


def _accepted(settings: Settings) -> set[str]:
    path = _accepted_file(settings)
    return set(_text(path).split()) if path.exists() else set()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.with_name(f".{path.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
