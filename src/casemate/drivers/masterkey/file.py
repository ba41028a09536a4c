"""A master key of 32 bytes in memory, read from a private file: AES-256-GCM (NIST SP 800-38D)."""

from __future__ import annotations

import hashlib
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from casemate.drivers import masterkey
from casemate.errors import Malformed, Unusable

_IV = 12
_WRAPPED = _IV + masterkey.DATA_KEY + 16


class FileKey:
    """Wrapped: iv 12 | ciphertext 32 | tag 16."""

    kind, slow = "file", False

    def __init__(self, master: bytes) -> None:
        if len(master) != masterkey.DATA_KEY:
            raise Unusable(f"the master key has {len(master)} bytes, {masterkey.DATA_KEY} are wanted")
        self._cipher = AESGCM(master)
        # As in stores of the first format, so that those open too.
        self.ident = hashlib.sha256(b"casemate master key id\0" + master).digest()[:8]

    def wrap(self, key: bytes) -> bytes:
        """A data key, wrapped."""
        iv = os.urandom(_IV)
        return iv + self._cipher.encrypt(iv, key, self.ident)

    def unwrap(self, wrapped: bytes) -> bytes:
        """The data key; `Malformed` when it was changed."""
        return self._opened(wrapped, self.ident)

    def unwrap_first(self, wrapped: bytes, bound: bytes) -> bytes:
        """A data key of the first format, which bound it to `bound` as well."""
        return self._opened(wrapped, bound)

    def close(self) -> None:
        """Nothing is held."""

    def _opened(self, wrapped: bytes, bound: bytes) -> bytes:
        if len(wrapped) != _WRAPPED:
            raise Malformed("wrapped key: another length than this master key makes")
        try:
            return self._cipher.decrypt(wrapped[:_IV], wrapped[_IV:], bound)
        except InvalidTag:
            raise Malformed("sealed value: it was changed or belongs elsewhere") from None
