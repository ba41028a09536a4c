"""A long message in sealed frames: read and written piece by piece, and nothing can be cut off, moved or repeated.

AES-256-GCM under a key that seals one message only. Frame n: nonce = n in 12 bytes, associated data = context | 1 for
the last frame, else 0. So frames open only in their order, and only the last one ends the message.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from casemate.errors import Malformed

__all__ = ["KEY_SIZE", "OVERHEAD", "Opener", "Sealer"]

KEY_SIZE = 32
OVERHEAD = 16


class Sealer:
    """Seals the frames of one message; `context` is bytes that the reader has as well."""

    def __init__(self, key: bytes, context: bytes) -> None:
        self._key, self._context, self._number = AESGCM(key), context, 0

    def seal(self, frame: bytes, *, last: bool = False) -> bytes:
        """The next frame, sealed; 16 bytes longer."""
        number, self._number = self._number, self._number + 1
        return self._key.encrypt(number.to_bytes(12, "big"), frame, self._context + bytes([last]))


class Opener:
    """Opens the frames of one message in their order."""

    def __init__(self, key: bytes, context: bytes) -> None:
        self._key, self._context, self._number = AESGCM(key), context, 0

    def open(self, sealed: bytes, *, last: bool = False) -> bytes:
        """The next frame; `Malformed` when it is not the one that was sealed in this place."""
        number, self._number = self._number, self._number + 1
        try:
            return self._key.decrypt(number.to_bytes(12, "big"), sealed, self._context + bytes([last]))
        except InvalidTag:
            raise Malformed(f"frame {number}: it was changed, or the key is another one") from None
