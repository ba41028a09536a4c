"""Whose log it is: its origin and every key that signed for it, each with its time. Part of a trust file."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from casemate.errors import Malformed
from casemate.ledger.note import Verifier

MAX_KEYS = 64
MAX_ORIGIN = 200


@dataclass(frozen=True)
class Key:
    """A log key and its time, in milliseconds since 1970; `ended` is None for the one that signs now."""

    verifier: Verifier
    begun: int
    ended: int | None = None


@dataclass(frozen=True)
class History:
    """A log's origin and its keys, oldest first."""

    origin: str
    keys: tuple[Key, ...]

    @property
    def verifiers(self) -> tuple[Verifier, ...]:
        """All keys, ended or not: an old checkpoint stays what it was."""
        return tuple(key.verifier for key in self.keys)

    def key(self, verifier: Verifier) -> Key:
        """The key with its time."""
        return next(key for key in self.keys if key.verifier == verifier)

    def as_document(self) -> dict[str, Any]:
        """The JSON form that `parse` takes."""
        return {
            "origin": self.origin,
            "keys": [
                {"vkey": key.verifier.text(), "begun": text(key.begun), "ended": text(key.ended) if key.ended else None}
                for key in self.keys
            ],
        }


def parse(document: Any) -> History:
    """The history in a parsed JSON value."""
    if not isinstance(document, dict) or not isinstance(document.get("keys"), list):
        raise Malformed("log keys: `origin` and a list `keys` are wanted")
    origin, keys = document.get("origin"), document["keys"]
    if not isinstance(origin, str) or not 0 < len(origin) <= MAX_ORIGIN or any(c.isspace() for c in origin):
        raise Malformed("log keys: `origin` is the log's name, without a space")
    if not 1 <= len(keys) <= MAX_KEYS:
        raise Malformed(f"log keys: 1 to {MAX_KEYS} are wanted")
    return History(origin, tuple(_key(entry) for entry in keys))


def text(moment: int) -> str:
    """Milliseconds since 1970 as RFC 3339."""
    return datetime.fromtimestamp(moment / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def millis(value: Any, name: str) -> int:
    """The reverse of `text`; `Malformed` for a time without a zone."""
    try:
        found = datetime.fromisoformat(value)
        if found.tzinfo is None:
            raise ValueError
        return round(found.timestamp() * 1000)
    except (TypeError, ValueError, OverflowError) as error:
        raise Malformed(f"{name}: a time as in 2026-11-21T12:00:00Z is wanted") from error


def _key(entry: Any) -> Key:
    if not isinstance(entry, dict) or not isinstance(entry.get("vkey"), str):
        raise Malformed("log keys: each has `vkey`, `begun` and `ended`")
    begun, ended = millis(entry.get("begun"), "log keys: begun"), entry.get("ended")
    found = Key(Verifier.parse(entry["vkey"]), begun, None if ended is None else millis(ended, "log keys: ended"))
    if begun < 0 or (found.ended is not None and found.ended < begun):
        raise Malformed("log keys: a key ended before it began")
    return found
