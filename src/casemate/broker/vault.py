"""Encryption at rest, as an envelope: each value under a data key of its own, that key under the master key.

Layout: `CMV2` | id of the master key, 8 bytes | length 2 | wrapped data key | iv 12 | ciphertext and tag (AES-256-GCM,
NIST SP 800-38D). The value's label is associated data, so that a sealed value opens only where it was put; the wrapped
key has no label, so that it can be wrapped anew without touching the value.

Stores of the first format hold `CMV1` | id 8 | iv 12 | wrapped key 48 | iv 12 | ciphertext and tag, where the wrapping
is bound to the label as well. Such values open, and are wrapped anew in the present format.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from casemate.drivers.masterkey import DATA_KEY, MAX_WRAPPED, MasterKey
from casemate.drivers.masterkey.file import FileKey
from casemate.errors import CasemateError, Malformed, Unusable
from casemate.wire.cursor import Cursor

_FIRST, _MAGIC = b"CMV1", b"CMV2"
MAGICS = (_FIRST, _MAGIC)
HEAD = 12  # magic and id: what tells which master key a sealed value needs
KEY_SIZE = DATA_KEY
_OPENED_SECONDS = 300.0
_OPENED = 4096
_LOG = logging.getLogger("casemate.vault")

Masters = tuple[MasterKey, ...]


class Vault:
    """Seals under the first of its master keys and opens under all of them.

    `reread` gives the master keys as the settings name them now, `stamp` changes when the settings may have changed:
    then, and when a value needs a key that is not known, they are read anew. So a new master key needs no restart.
    """

    def __init__(
        self,
        masters: bytes | Sequence[MasterKey],
        *,
        reread: Callable[[], Masters] | None = None,
        stamp: Callable[[], object] = lambda: None,
    ) -> None:
        self._masters: Masters = (FileKey(masters),) if isinstance(masters, bytes) else tuple(masters)
        self._reread, self._stamp, self._seen = reread, stamp, stamp()
        self._lock = threading.Lock()
        self._data_keys = _DataKeys()

    @property
    def masters(self) -> Masters:
        """The master keys, the one that seals first."""
        return self._masters

    @property
    def head(self) -> bytes:
        """How a value begins that is sealed under the present master key."""
        return _MAGIC + self._masters[0].ident

    def seal(self, label: str, value: bytes) -> bytes:
        """`value`, readable only under this master key and this label."""
        self._look()
        key, iv = os.urandom(KEY_SIZE), os.urandom(12)
        return _enveloped(self._masters[0], key) + iv + AESGCM(key).encrypt(iv, value, _bound(label))

    def open(self, label: str, sealed: bytes) -> bytes:
        """The value; `Unusable` when it was sealed under another master key, `Malformed` when it was changed."""
        cursor = Cursor(sealed, "sealed value")
        head = cursor.take(HEAD)
        master = self._master(head)
        if head[:4] == _FIRST:
            return _open_first(master, head, cursor, label)
        wrapped = _wrapped(cursor)
        key = self._data_keys.opened(master, wrapped) if master.slow else master.unwrap(wrapped)
        return _decrypt(key, cursor.take(12), cursor.take(cursor.remaining), _bound(label))

    def rewrap(self, label: str, sealed: bytes) -> bytes | None:
        """The same value under the present master key; None when it is that already. The value stays as it is."""
        if sealed[:HEAD] == self.head:
            return None
        cursor = Cursor(sealed, "sealed value")
        head = cursor.take(HEAD)
        if head[:4] == _FIRST:  # its wrapping is bound to the label: seal it anew
            return self.seal(label, self.open(label, sealed))
        key = self._master(head).unwrap(_wrapped(cursor))
        return _enveloped(self._masters[0], key) + cursor.take(cursor.remaining)

    def reload(self) -> None:
        """Take the master keys as the settings name them now; when that fails nothing has changed."""
        if self._reread is None:
            return
        with self._lock:
            stamp = self._stamp()
            fresh = self._reread()
            known = {key.ident: key for key in self._masters}
            for key in fresh:
                if key.ident in known:
                    key.close()
            kept = tuple(known.pop(key.ident, key) for key in fresh)
            self._masters, self._seen = kept, stamp
        self._data_keys.forget()
        for key in known.values():
            key.close()

    def close(self) -> None:
        """Let go of tokens."""
        self._data_keys.forget()
        for key in self._masters:
            key.close()

    def _look(self) -> None:
        """Read the settings anew when they changed; settings that can't be used leave the present keys."""
        if self._reread is None or self._stamp() == self._seen:
            return
        try:
            self.reload()
        except CasemateError as error:
            self._seen = self._stamp()
            _LOG.warning("the settings name master keys that can't be used (%s); the present ones stay", error)

    def _master(self, head: bytes) -> MasterKey:
        if head[:4] not in (_FIRST, _MAGIC):
            raise Malformed("sealed value: not in this format")
        found = next((key for key in self._masters if key.ident == head[4:]), None)
        if found is None and self._reread is not None and self._stamp() != self._seen:
            with contextlib.suppress(CasemateError):
                self.reload()
            found = next((key for key in self._masters if key.ident == head[4:]), None)
        if found is None:
            raise Unusable(
                "the store is sealed under another master key",
                hint="list the master key of this store under `masters` in broker.toml",
            )
        return found


class _DataKeys:
    """Data keys that slow master keys opened, for a while."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._opened: OrderedDict[tuple[bytes, bytes], tuple[float, bytes]] = OrderedDict()

    def opened(self, master: MasterKey, wrapped: bytes) -> bytes:
        """The data key inside `wrapped`."""
        name = (master.ident, wrapped)
        with self._lock:
            until, key = self._opened.get(name, (0.0, b""))
        if until >= time.monotonic():
            return key
        key = master.unwrap(wrapped)
        with self._lock:
            self._opened[name] = (time.monotonic() + _OPENED_SECONDS, key)
            while len(self._opened) > _OPENED:
                self._opened.popitem(last=False)
        return key

    def forget(self) -> None:
        """Nothing is remembered any more."""
        with self._lock:
            self._opened.clear()


def _enveloped(master: MasterKey, key: bytes) -> bytes:
    wrapped = master.wrap(key)
    return _MAGIC + master.ident + len(wrapped).to_bytes(2, "big") + wrapped


def _bound(label: str) -> bytes:
    return _MAGIC + b"\0" + label.encode()


def _wrapped(cursor: Cursor) -> bytes:
    size = cursor.be16()
    if not 0 < size <= MAX_WRAPPED:
        raise Malformed("sealed value: no wrapped key of a length that is allowed")
    return cursor.take(size)


def _open_first(master: MasterKey, head: bytes, cursor: Cursor, label: str) -> bytes:
    if not isinstance(master, FileKey):
        raise Malformed("sealed value: of the first format, which knew keys in files alone")
    key = master.unwrap_first(cursor.take(12 + KEY_SIZE + 16), head + label.encode())
    return _decrypt(key, cursor.take(12), cursor.take(cursor.remaining), label.encode())


def _decrypt(key: bytes, iv: bytes, sealed: bytes, bound: bytes) -> bytes:
    try:
        return AESGCM(key).decrypt(iv, sealed, bound)
    except (InvalidTag, ValueError):
        raise Malformed("sealed value: it was changed or belongs elsewhere") from None
