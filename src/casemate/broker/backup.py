"""Backups: all that a store holds at one moment, in one sealed file that SQLite and PostgreSQL can be filled from.

File: `CMBACKUP1` and a newline | length of the head, 4 bytes | head, JSON {"id", "created", "schema", "sealing"} |
frames: length 4 bytes with the top bit set on the last one | sealed frame (`crypto/frames.py`). The file's key lies in
the head, sealed under the broker's master key or under a passphrase (scrypt, RFC 7914). A frame is one message in
msgpack: those of `drivers/store/dump.py`, `["file", name, bytes]` for the broker's keys, `["end", {table: rows}]`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING, Any

import msgspec
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from casemate.crypto.frames import KEY_SIZE, OVERHEAD, Opener, Sealer
from casemate.drivers.store import dump
from casemate.errors import Malformed, Unusable
from casemate.wire import jcs
from casemate.wire.encoding import b64, unb64

if TYPE_CHECKING:
    from casemate.broker.vault import Vault

MAGIC = b"CMBACKUP1\n"
MAX_HEAD, MAX_FRAME = 64 << 10, 64 << 20
MIN_PASSPHRASE = 12
_LAST = 1 << 31
_COST = {"n": 1 << 16, "r": 8, "p": 1}  # 64 MiB and about 0.2 s
_LIMITS = {"n": 1 << 20, "r": 16, "p": 4}

Unlock = Callable[[dict[str, Any]], bytes]


def by_vault(vault: Vault, number: str) -> tuple[bytes, dict[str, Any]]:
    """A file's key and how its head says it, sealed under the master key."""
    key = os.urandom(KEY_SIZE)
    return key, {"kind": "vault", "key": b64(vault.seal(_label(number), key))}


def by_passphrase(passphrase: bytes, number: str) -> tuple[bytes, dict[str, Any]]:
    """A file's key and how its head says it, sealed under a passphrase of at least 12 bytes."""
    if len(passphrase) < MIN_PASSPHRASE:
        raise Unusable(f"the passphrase has {len(passphrase)} bytes, {MIN_PASSPHRASE} are the least")
    key, salt = os.urandom(KEY_SIZE), os.urandom(16)
    sealed = Sealer(_stretched(passphrase, salt, _COST), _label(number).encode()).seal(key, last=True)
    return key, {"kind": "scrypt", "salt": b64(salt), **_COST, "key": b64(sealed)}


def unlock(head: dict[str, Any], *, vault: Vault | None = None, passphrase: bytes | None = None) -> bytes:
    """The file's key; `Unusable` says what is needed for it."""
    sealing = head["sealing"]
    if sealing.get("kind") == "vault":
        if vault is None:
            raise Unusable("the backup is sealed under its broker's master key", hint="restore in a folder that has it")
        return vault.open(_label(head["id"]), unb64(sealing.get("key"), "backup: key"))
    if passphrase is None:
        raise Unusable("the backup is sealed under a passphrase", hint="--passphrase-file")
    cost = {name: sealing.get(name) for name in _COST}
    if not all(isinstance(cost[name], int) and 0 < cost[name] <= _LIMITS[name] for name in _COST):
        raise Malformed("backup: cost of the passphrase")
    stretched = _stretched(passphrase, unb64(sealing.get("salt"), "backup: salt"), cost)
    try:
        return Opener(stretched, _label(head["id"]).encode()).open(unb64(sealing.get("key"), "backup: key"), last=True)
    except Malformed:
        raise Unusable("the passphrase is another one") from None


def write(file: IO[bytes], head: dict[str, Any], key: bytes, messages: Iterator[dump.Message]) -> dict[str, int]:
    """Write a backup; returns rows by table."""
    raw = json.dumps(head, separators=(",", ":")).encode()
    front = MAGIC + len(raw).to_bytes(4, "big") + raw
    file.write(front)
    sealer, counts, name = Sealer(key, hashlib.sha256(front).digest()), dict[str, int](), ""
    for message in messages:
        if message[0] == dump.TABLE:
            name = message[1]
            counts[name] = 0
        elif message[0] == dump.ROWS:
            counts[name] += len(message[1])
        _frame(file, sealer, message, last=False)
    _frame(file, sealer, ["end", counts], last=True)
    return counts


def head(file: IO[bytes]) -> tuple[dict[str, Any], bytes]:
    """A backup's head, and what its frames are bound to; `Malformed` for another file."""
    magic = file.read(len(MAGIC))
    if magic != MAGIC:
        raise Malformed("this is no backup of Casemate")
    length = file.read(4)
    size = int.from_bytes(length, "big")
    if len(length) < 4 or size > MAX_HEAD:
        raise Malformed("backup: the head is cut off or too long")
    raw = file.read(size)
    found = jcs.parse_object(raw, "backup", limit=MAX_HEAD)
    good = all(isinstance(found.get(name), str) for name in ("id", "created", "schema"))
    if len(raw) < size or not good or not isinstance(found.get("sealing"), dict):
        raise Malformed("backup: the head lacks a member")
    return found, hashlib.sha256(magic + length + raw).digest()


def messages(file: IO[bytes], key: bytes, context: bytes) -> Iterator[dump.Message]:
    """The messages up to the end, each checked; `Malformed` when anything is missing, changed or too much."""
    opener, counts, name, last = Opener(key, context), dict[str, int](), "", False
    while not last:
        raw = file.read(4)
        size = int.from_bytes(raw, "big")
        last, size = bool(size & _LAST), size & ~_LAST
        if len(raw) < 4 or not OVERHEAD <= size <= MAX_FRAME:
            raise Malformed("backup: it is cut off")
        sealed = file.read(size)
        if len(sealed) < size:
            raise Malformed("backup: it is cut off")
        message = _message(opener.open(sealed, last=last))
        if last:
            if message != ["end", counts] or file.read(1):
                raise Malformed("backup: its end is another one")
            return
        if message[0] == dump.TABLE:
            name = str(message[1])
            counts[name] = 0
        elif message[0] == dump.ROWS and name:
            counts[name] += len(message[1])
        yield message


def _message(plain: bytes) -> dump.Message:
    try:
        found: dump.Message = msgspec.msgpack.decode(plain, type=list)
    except msgspec.MsgspecError as error:
        raise Malformed("backup: a frame that is no message") from error
    if not found or (found[0] in (dump.TABLE, dump.ROWS) and (len(found) < 2 or not isinstance(found[1], str | list))):
        raise Malformed("backup: a message that is none of ours")
    return found


def _frame(file: IO[bytes], sealer: Sealer, message: dump.Message, *, last: bool) -> None:
    sealed = sealer.seal(msgspec.msgpack.encode(message), last=last)
    if len(sealed) > MAX_FRAME:
        raise Unusable("a row is too long for a backup")
    file.write((len(sealed) | (_LAST if last else 0)).to_bytes(4, "big") + sealed)


def _stretched(passphrase: bytes, salt: bytes, cost: dict[str, int]) -> bytes:
    try:
        return Scrypt(salt=salt, length=KEY_SIZE, **cost).derive(passphrase)
    except (ValueError, MemoryError) as error:
        raise Malformed("backup: cost of the passphrase") from error


def _label(number: str) -> str:
    return f"backup:{number}"
