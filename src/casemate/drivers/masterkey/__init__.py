"""Where the master key lies: in a file, in a PKCS#11 token, or behind a command. Only tokens and commands do I/O later.

A master key wraps data keys of 32 bytes and opens them again. What it wrapped says nothing of the place that it belongs
to: the vault binds each value to its label itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from casemate.drivers import keyfiles
from casemate.errors import Malformed, Unusable

DATA_KEY = 32
MAX_WRAPPED = 4096


class InFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="file", tag_field="kind"):
    """32 random bytes in a private file; a relative path starts in the broker's folder."""

    path: Path = Path("master.key")


class InToken(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="pkcs11", tag_field="kind"):
    """An AES key in a token: `key_id` is its CKA_ID in hex, the PIN stands in a private file."""

    module: Path
    token: str
    key_id: str
    pin_file: Path
    seconds: float = 10.0


class ByCommand(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="command", tag_field="kind"):
    """A program that wraps and unwraps (docs/how-to/secrets.md); `key_id` is handed to it and names the key here."""

    argv: tuple[str, ...]
    key_id: str
    seconds: float = 10.0


Spec = InFile | InToken | ByCommand


class MasterKey(Protocol):
    """One master key. `ident` are 8 bytes that stand in front of what it wrapped; `slow` says that a call is dear."""

    ident: bytes
    kind: str
    slow: bool

    def wrap(self, key: bytes) -> bytes:
        """A data key of 32 bytes, wrapped."""
        ...

    def unwrap(self, wrapped: bytes) -> bytes:
        """The data key; `Malformed` when this master key did not wrap it, `Unavailable` when it can't be asked."""
        ...

    def close(self) -> None:
        """Let go of tokens and sessions."""
        ...


def ident(kind: str, *parts: bytes) -> bytes:
    """Eight bytes that tell master keys apart."""
    return hashlib.sha256(b"\0".join((b"casemate master key id", kind.encode(), *parts))).digest()[:8]


def open_(spec: Spec, folder: Path) -> MasterKey:
    """The master key that `spec` tells of; `folder` is where relative paths start."""
    if isinstance(spec, InFile):
        from casemate.drivers.masterkey.file import FileKey

        return FileKey(keyfiles.read(folder / spec.path))
    if isinstance(spec, InToken):
        from casemate.drivers.masterkey.pkcs11 import TokenKey

        return TokenKey(
            spec.module, spec.token, _hex(spec.key_id), pin_file=folder / spec.pin_file, seconds=spec.seconds
        )
    from casemate.drivers.masterkey.command import CommandKey

    return CommandKey(spec.argv, spec.key_id, seconds=spec.seconds)


def open_all(specs: Sequence[Spec], folder: Path) -> tuple[MasterKey, ...]:
    """Every master key; the first one wraps, all unwrap. The same key twice is `Unusable`."""
    made: list[MasterKey] = []
    try:
        for spec in specs:
            made.append(open_(spec, folder))
        if len({key.ident for key in made}) != len(made):
            raise Unusable("two entries of `masters` name one key", hint="name each master key once")
    except BaseException:
        for key in made:
            key.close()
        raise
    return tuple(made)


def demand_key(data: bytes) -> bytes:
    """A data key of the right size; `Malformed` otherwise."""
    if len(data) != DATA_KEY:
        raise Malformed(f"wrapped key: {len(data)} bytes inside, {DATA_KEY} wanted")
    return data


def _hex(text: str) -> bytes:
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if not found:
        raise Unusable("masters: key_id of a token is the key's CKA_ID in hex", hint="pkcs11-tool --list-objects")
    return found
