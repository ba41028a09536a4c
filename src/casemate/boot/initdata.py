"""Initdata: the document that carries the manifest into the guest, and the disk that carries the document.

The document is CoCo's TOML (`version`, `algorithm`, `[data]`), with the canonical manifest as `"casemate.json"` and
nothing else. Its SHA-256 is what the hardware binds, so it is made deterministically: one manifest, one document.
`parse` accepts any TOML spelling but demands the canonical manifest inside, and no entry that nobody would judge.

The disk (kata-containers, initdata block device) is `initdata` | u64 LE gzip length | gzip of the document | zeros to a
multiple of 512. The disk is the host's; only the digest of the document that came out of it counts.
"""

from __future__ import annotations

import hashlib
import zlib
from typing import NamedTuple

from casemate.errors import Malformed
from casemate.schema import manifest as manifests
from casemate.schema.manifest import Manifest
from casemate.wire.cursor import Cursor

__all__ = [
    "ALGORITHM",
    "ENTRY",
    "Initdata",
    "MAX_DOCUMENT",
    "VERSION",
    "digest",
    "disk",
    "document",
    "parse",
    "parse_disk",
]

VERSION = "0.1.0"
ALGORITHM = "sha256"
ENTRY = "casemate.json"
MAX_DOCUMENT = 4 << 20
MAX_DISK = 4 << 20  # as in the guest's initrd
_MAGIC = b"initdata"
_SECTOR = 512
_GZIP = 31  # zlib's window bits for a gzip member; its header then carries neither time nor name
_HEAD = f'version = "{VERSION}"\nalgorithm = "{ALGORITHM}"\n\n[data]\n"{ENTRY}" = "'
_TAIL = '"\n'


class Initdata(NamedTuple):
    """A parsed document: the manifest and the document's SHA-256 (32 bytes)."""

    manifest: Manifest
    digest: bytes


def document(manifest: Manifest) -> bytes:
    """The initdata document of a manifest; the same bytes on every machine."""
    return _render(manifest.canonical().decode("utf-8"))


def digest(data: bytes) -> bytes:
    """SHA-256 (32 bytes) of a document, as the hardware binds it."""
    return hashlib.sha256(data).digest()


def parse(data: bytes) -> Initdata:
    """The manifest in a document of at most 4 MiB; the only error is `Malformed`."""
    if len(data) > MAX_DOCUMENT:
        raise Malformed(f"initdata: {len(data)} bytes, at most {MAX_DOCUMENT} allowed")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed("initdata: not UTF-8") from error
    entry = _entry(text)
    manifest = manifests.parse(entry)
    if manifest.canonical() != entry.encode("utf-8"):
        raise Malformed(f"initdata: {ENTRY} is not in canonical form (RFC 8785, defaults left out)")
    return Initdata(manifest, digest(data))


def disk(data: bytes) -> bytes:
    """The read-only disk for a document."""
    packer = zlib.compressobj(level=9, wbits=_GZIP)
    packed = packer.compress(data) + packer.flush()
    raw = _MAGIC + len(packed).to_bytes(8, "little") + packed
    return raw + bytes(-len(raw) % _SECTOR)


def parse_disk(data: bytes) -> bytes:
    """The document on a disk, every size bounded; the only error is `Malformed`."""
    if len(data) > MAX_DISK:
        raise Malformed(f"initdata disk: {len(data)} bytes, at most {MAX_DISK} allowed")
    cursor = Cursor(data, "initdata disk")
    if cursor.take(len(_MAGIC)) != _MAGIC:
        raise Malformed("initdata disk: it does not begin with 'initdata'")
    packed = cursor.take(cursor.u64())
    if cursor.take(cursor.remaining).strip(b"\0"):
        raise Malformed("initdata disk: something other than zeros behind the document")
    unpacker = zlib.decompressobj(wbits=_GZIP)
    try:
        text = unpacker.decompress(packed, MAX_DOCUMENT + 1)
    except zlib.error as error:
        raise Malformed("initdata disk: not gzip") from error
    if len(text) > MAX_DOCUMENT:
        raise Malformed(f"initdata disk: the document is longer than {MAX_DOCUMENT} bytes")
    if not unpacker.eof or unpacker.unused_data:
        raise Malformed("initdata disk: the gzip member is cut short or followed by something")
    return text


def _render(entry: str) -> bytes:
    """TOML around the canonical JSON; RFC 8785 leaves only these three characters for TOML to escape."""
    escaped = entry.replace("\\", "\\\\").replace('"', '\\"').replace("\x7f", "\\u007F")
    return (_HEAD + escaped + _TAIL).encode("utf-8")


def _entry(text: str) -> str:
    """The text of the one entry."""
    import tomllib

    try:
        top = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"initdata: not TOML ({error})") from error
    data = top.get("data")
    if set(top) != {"version", "algorithm", "data"} or not isinstance(data, dict):
        raise Malformed("initdata: version, algorithm and [data] are wanted, and nothing else")
    if top["version"] != VERSION or top["algorithm"] != ALGORITHM:
        raise Malformed(f"initdata: version {VERSION!r} and algorithm {ALGORITHM!r} are wanted")
    entry = data.get(ENTRY)
    if set(data) != {ENTRY} or not isinstance(entry, str):
        raise Malformed(f"initdata: [data] must hold {ENTRY!r} as a string, and nothing else")
    return entry
