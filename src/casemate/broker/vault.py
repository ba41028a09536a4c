"""Encryption at rest: each value under its own key, that key under the master key (AES-256-GCM, NIST SP 800-38D).

Layout: `CMV1` | id of the master key, 8 bytes | iv 12 | wrapped key 48 | iv 12 | ciphertext and tag. Both encryptions
carry the value's label as associated data, so that a sealed value opens only where it was put.
"""

from __future__ import annotations

import hashlib
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from casemate.errors import Malformed, Unusable
from casemate.wire.cursor import Cursor

_MAGIC = b"CMV1"
KEY_SIZE = 32


class Vault:
    """Seals and opens under one master key of 32 bytes."""

    def __init__(self, master: bytes) -> None:
        if len(master) != KEY_SIZE:
            raise Unusable(f"the master key has {len(master)} bytes, {KEY_SIZE} are wanted")
        self._master = AESGCM(master)
        self._id = hashlib.sha256(b"casemate master key id\0" + master).digest()[:8]

    def seal(self, label: str, value: bytes) -> bytes:
        """`value`, readable only under this master key and this label."""
        key, outer, inner = os.urandom(KEY_SIZE), os.urandom(12), os.urandom(12)
        head = _MAGIC + self._id
        wrapped = self._master.encrypt(outer, key, head + label.encode())
        return head + outer + wrapped + inner + AESGCM(key).encrypt(inner, value, label.encode())

    def open(self, label: str, sealed: bytes) -> bytes:
        """The value; `Unusable` when it was sealed under another master key, `Malformed` when it was changed."""
        cursor = Cursor(sealed, "sealed value")
        head = cursor.take(12)
        if head[:4] != _MAGIC:
            raise Malformed("sealed value: not in this format")
        if head[4:] != self._id:
            raise Unusable("the store is sealed under another master key", hint="use the master key of this store")
        outer, wrapped, inner = cursor.take(12), cursor.take(KEY_SIZE + 16), cursor.take(12)
        try:
            key = self._master.decrypt(outer, wrapped, head + label.encode())
            return AESGCM(key).decrypt(inner, cursor.take(cursor.remaining), label.encode())
        except InvalidTag:
            raise Malformed("sealed value: it was changed or belongs elsewhere") from None
