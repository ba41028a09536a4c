"""Entries of the log: what everybody may see, and commitments to the rest.

An entry is canonical JSON (RFC 8785): ``{"allowed", "c", "kind", "time", "v"}``; `time` in milliseconds since 1970,
`c` from field to base64url commitment. A commitment is SHA-256(tag, field, 0, field's salt, RFC 8785 of the value); the
field's salt is HMAC-SHA-256 of the field under the entry's salt of 32 random bytes. So one field can be opened alone, a
guess at a value cannot be tested, and whoever knows the entry's salt knows all salts.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from casemate.errors import Malformed
from casemate.wire import jcs
from casemate.wire.encoding import b64u, unb64u

VERSION = 1
MAX_ENTRY = (1 << 16) - 1  # the length of an entry in a bundle has two bytes
MAX_FIELDS = 64
MAX_VALUE = 128 << 10
MAX_TIME = 253_402_300_800_000  # the year 10000, in milliseconds
SALT_SIZE = 32
_TAG = b"casemate log commitment v1\0"
_KIND = re.compile(r"[a-z][a-z0-9._-]{0,63}")
_FIELD = re.compile(r"[a-z][a-z0-9_]{0,31}")
_quoted = json.encoder.encode_basestring
# HMAC (RFC 2104) in two hashes: an entry has a dozen under one key, and OpenSSL looks up its parts for each.
_BLOCK = hashlib.sha256().block_size
_INNER, _OUTER = bytes(byte ^ 0x36 for byte in range(256)), bytes(byte ^ 0x5C for byte in range(256))
_MEMBERS = frozenset({"allowed", "c", "kind", "time", "v"})


@dataclass(frozen=True)
class Entry:
    """An entry, read. `allowed` is None where nothing was decided; `commitments` are 32 bytes each, by field."""

    kind: str
    time: int
    allowed: bool | None
    commitments: Mapping[str, bytes]

    def opens(self, field: str, salt: bytes, value: Any) -> bool:
        """Whether `value`, with the field's own salt, is what this entry committed to."""
        known = self.commitments.get(field)
        return known is not None and hmac.compare_digest(known, commitment(field, salt, value))


def make(kind: str, time: int, allowed: bool | None, fields: Mapping[str, Any], salt: bytes) -> bytes:
    """The bytes of an entry. `salt` is the entry's, 32 random bytes; a field of None is left out."""
    if not _KIND.fullmatch(kind) or not 0 <= time < MAX_TIME or len(salt) != SALT_SIZE or len(fields) > MAX_FIELDS:
        raise Malformed("log entry: its kind, time, salt or number of fields is out of bounds")
    key = salt.ljust(_BLOCK, b"\0")
    inner, outer = key.translate(_INNER), key.translate(_OUTER)
    made = {
        name: b64u(_committed(name, _sha256(outer + _sha256(inner + name.encode())), fields[name]))
        for name in sorted(fields)
        if fields[name] is not None
    }
    # ASCII, whole numbers, names in order: RFC 8785.
    data = jcs.compact({"allowed": allowed, "c": made, "kind": kind, "time": time, "v": VERSION})
    if len(data) > MAX_ENTRY:
        raise Malformed(f"log entry: at most {MAX_ENTRY} bytes are possible")
    return data


def field_salt(salt: bytes, field: str) -> bytes:
    """The salt of one field."""
    return hmac.digest(salt, field.encode(), "sha256")


def commitment(field: str, salt: bytes, value: Any) -> bytes:
    """What an entry says of a field; `salt` is the field's."""
    return _committed(field, salt, value)


def _committed(field: str, salt: bytes, value: Any) -> bytes:
    if not _FIELD.fullmatch(field):
        raise Malformed(f"log entry: {field[:40]!r} is no name of a field")
    plain = _canonical(value)
    if len(plain) > MAX_VALUE:
        raise Malformed(f"log entry: {field} has {len(plain)} bytes, at most {MAX_VALUE} are allowed")
    return _sha256(_TAG + field.encode() + b"\0" + salt + plain)


def _canonical(value: Any) -> bytes:
    """RFC 8785; for text and lists of text, most of what there is, by the interpreter's own writer, which agrees."""
    try:
        if isinstance(value, str):
            return _quoted(value).encode()
        if isinstance(value, list):
            return f"[{','.join(map(_quoted, value))}]".encode()
    except TypeError:  # a list of other things
        pass
    except UnicodeEncodeError as error:
        raise Malformed("log entry: half a surrogate pair in a value") from error
    return jcs.canonical(value)


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def parse(data: bytes) -> Entry:
    """The entry in these bytes; `Malformed` unless they are its one canonical form."""
    document = jcs.parse_object(data, "log entry", limit=MAX_ENTRY)
    if document.keys() != _MEMBERS or document["v"] != VERSION:
        raise Malformed(f"log entry: of version {VERSION} are wanted: {', '.join(sorted(_MEMBERS))}")
    kind, time, allowed, committed = (document[name] for name in ("kind", "time", "allowed", "c"))
    if not isinstance(kind, str) or not _KIND.fullmatch(kind):
        raise Malformed("log entry: `kind` is a word")
    if isinstance(time, bool) or not isinstance(time, int) or not 0 <= time < MAX_TIME:
        raise Malformed("log entry: `time` is a number of milliseconds")
    if not (allowed is None or isinstance(allowed, bool)) or not isinstance(committed, dict):
        raise Malformed("log entry: `allowed` is true, false or null, `c` an object")
    if len(committed) > MAX_FIELDS or not all(_FIELD.fullmatch(name) for name in committed):
        raise Malformed(f"log entry: at most {MAX_FIELDS} fields, with names of their own, are wanted")
    found = {name: _commitment(name, value) for name, value in committed.items()}
    if jcs.canonical(document) != data:
        raise Malformed("log entry: not in its canonical form")
    return Entry(kind, time, allowed, found)


def _commitment(name: str, value: Any) -> bytes:
    if not isinstance(value, str):
        raise Malformed(f"log entry: the commitment to {name} is no text")
    return unb64u(value, f"log entry: commitment to {name}", size=hashlib.sha256().digest_size)
