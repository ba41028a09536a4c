"""`casemate backup` and `casemate restore`: a running broker's store into a file, and an empty store from it."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from casemate.broker import backup, journal
from casemate.broker.assemble import ADMIN_PUBLIC, MASTER_KEY, TLS_KEY, assemble, open_vault
from casemate.broker.settings import FILE, Settings, load
from casemate.drivers import keyfiles
from casemate.drivers.store import Store, dump
from casemate.errors import Refused, Unusable

KEYS = (FILE, MASTER_KEY, TLS_KEY, ADMIN_PUBLIC)


def save(settings: Settings, path: Path, *, passphrase: bytes | None, keys: bool) -> dict[str, Any]:
    """Back up a broker, which may be running; the act is in its log, and so in the backup.

    With `keys` the folder's keys and settings are in it too, for which a passphrase is needed.
    """
    if keys and passphrase is None:
        raise Unusable("keys are backed up under a passphrase alone", hint="--passphrase-file")
    broker = assemble(settings)
    try:
        number, now = os.urandom(16).hex(), broker.clock()
        by_vault = passphrase is None
        key, sealing = (
            backup.by_vault(broker.vault, number) if passphrase is None else backup.by_passphrase(passphrase, number)
        )
        with _private(path) as file:  # what cannot be written is no entry
            with broker.store.write() as tx:
                facts = {"backup": number, "keys": keys, "sealing": "master key" if by_vault else "passphrase"}
                journal.admin(broker, tx, who="local", act="backup.make", facts=facts)
            with broker.store.snapshot() as tx:
                head = {"id": number, "created": now.isoformat(timespec="seconds"), "schema": dump.revision(tx)}
                said = _everything(settings, dump.messages(tx), keys=keys)
                counts = backup.write(file, {**head, "sealing": sealing}, key, said)
        return {"file": str(path), "id": number, "bytes": path.stat().st_size, "entries": counts.get("log_entries", 0)}
    finally:
        broker.close()


def restore(folder: Path, path: Path, *, passphrase: bytes | None, store: str | None) -> dict[str, Any]:
    """Fill the empty store of a broker from a backup; a folder without a broker gets the keys that the backup has.

    `store` names the database of a broker that is made from the backup. All or nothing is in the store afterwards.
    """
    try:
        with path.open("rb") as file:
            head, context = backup.head(file)
            made = not (folder / FILE).exists()
            vault = None if made else open_vault(load(folder))
            key = backup.unlock(head, vault=vault, passphrase=passphrase)
            files: dict[str, bytes] = {}
            said = _without_files(backup.messages(file, key, context), files)
            first = next(said, None)  # keys come before everything else
            if made:
                _write_keys(folder, files, store)
            settings = load(folder)
            counts = _fill(settings, head["schema"], said, first)
    except OSError as error:
        raise Unusable(f"{path} cannot be read: {error.strerror}") from error
    facts = {"backup": head["id"], "created": head["created"], "entries": counts.get("log_entries", 0)}
    return {**facts, "folder": str(folder), "keys": made, "behind": _recorded(settings, facts)}


def _fill(settings: Settings, schema: str, said: Iterator[dump.Message], first: dump.Message | None) -> dict[str, int]:
    store = Store(settings.store_url)
    try:
        return dump.load(store, schema, said if first is None else itertools.chain((first,), said))
    finally:
        store.close()


def _recorded(settings: Settings, facts: dict[str, Any]) -> str:
    """Log the restoration; what `serve` will say instead, when the broker has seen more than the backup holds."""
    try:
        broker = assemble(settings)
    except Refused as refused:
        return f"{refused.findings[0].expected} was seen, {refused.findings[0].found}; {refused.hint}"
    try:
        with broker.store.write() as tx:
            journal.admin(broker, tx, who="local", act="backup.restore", facts=facts)
    finally:
        broker.close()
    return ""


def _everything(settings: Settings, rows: Iterator[dump.Message], *, keys: bool) -> Iterator[dump.Message]:
    for name in KEYS if keys else ():
        path = settings.folder / name
        if path.exists():
            yield ["file", name, path.read_bytes() if name == FILE else keyfiles.read(path)]
    yield from rows


def _without_files(said: Iterator[dump.Message], files: dict[str, bytes]) -> Iterator[dump.Message]:
    for message in said:
        match message:
            case ["file", str(name), bytes(content)] if name in KEYS:
                files[name] = content
            case _:
                yield message


def _write_keys(folder: Path, files: dict[str, bytes], store: str | None) -> None:
    if FILE not in files:
        hint = "put the broker's keys and broker.toml there first, or back up with --with-keys"
        raise Unusable(f"{folder} holds no broker, and the backup has no keys", hint=hint)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in files:
        if (folder / name).exists():
            raise Unusable(f"{folder / name} is there already", hint="restore into a folder of its own")
    if store is not None:
        files[FILE] = _with_store(files[FILE], store)
    for name, content in sorted(files.items(), key=lambda item: item[0] == FILE):
        keyfiles.write(folder / name, content)


def _with_store(text: bytes, store: str) -> bytes:
    lines = [line for line in text.decode("utf-8").split("\n") if not line.startswith("store ")]
    return "\n".join([f"store = {json.dumps(store)}", *lines]).encode()


@contextlib.contextmanager
def _private(path: Path) -> Iterator[Any]:
    """A new file that only its owner reads, in its place when it is whole and on disk."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    if path.is_dir():
        raise Unusable(f"{path} cannot be written: it is a folder")
    try:
        with os.fdopen(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise Unusable(f"{path} cannot be written: {error.strerror}") from error
    finally:
        beside.unlink(missing_ok=True)
