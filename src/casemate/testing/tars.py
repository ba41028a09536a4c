"""Tars written by hand, so that they can be as wrong as an attacker's."""

from __future__ import annotations

from typing import Any


def header(
    name: bytes,
    kind: bytes = b"0",
    *,
    size: int = 0,
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    mtime: int = 0,
    link: bytes = b"",
    prefix: bytes = b"",
    **raw: bytes,
) -> bytes:
    """One ustar header; `raw` fields (size, checksum, mtime …) replace what would be written."""
    fields = {
        "name": name.ljust(100, b"\0"),
        "mode": b"%07o\0" % mode,
        "uid": b"%07o\0" % uid,
        "gid": b"%07o\0" % gid,
        "size": b"%011o\0" % size,
        "mtime": b"%011o\0" % mtime,
        "checksum": b" " * 8,
        "kind": kind,
        "link": link.ljust(100, b"\0"),
        "magic": b"ustar\x0000",
        "owner": bytes(80),
        "prefix": prefix.ljust(155, b"\0"),
        "end": bytes(12),
    }
    fields.update({key.removeprefix("raw_"): value for key, value in raw.items()})
    block = b"".join(fields.values())
    if len(block) != 512:
        raise ValueError(f"a header of {len(block)} bytes")
    if "raw_checksum" not in raw:
        block = block[:148] + b"%06o\0 " % sum(block) + block[156:]
    return block


def data(content: bytes) -> bytes:
    """Content, filled up to whole blocks."""
    return content + bytes(-len(content) % 512)


def file(name: bytes, content: bytes = b"", **given: Any) -> bytes:
    """A regular file with its data."""
    return header(name, size=len(content), **given) + data(content)


def pax(records: dict[bytes, bytes], kind: bytes = b"x") -> bytes:
    """An extended header; kind b"g" makes a global one."""
    body = b""
    for key, value in records.items():
        record = b" " + key + b"=" + value + b"\n"
        length = len(record) + 1
        while length != len(b"%d" % length) + len(record):
            length = len(b"%d" % length) + len(record)
        body += b"%d" % length + record
    return header(b"pax", kind, size=len(body)) + data(body)


def folder(name: bytes, **given: Any) -> bytes:
    """A directory."""
    return header(name, b"5", **{"mode": 0o755, **given})


def symlink(name: bytes, target: bytes, **given: Any) -> bytes:
    """A symbolic link."""
    return header(name, b"2", link=target, mode=0o777, **given)


def hard_link(name: bytes, target: bytes) -> bytes:
    """A hard link."""
    return header(name, b"1", link=target)


def tar(*parts: bytes) -> bytes:
    """A whole archive."""
    return b"".join(parts) + bytes(1024)
