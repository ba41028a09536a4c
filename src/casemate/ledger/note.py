"""Signed notes and checkpoints (C2SP signed-note v1, tlog-checkpoint v1), with Ed25519 keys.

A note is text that ends in a newline, an empty line, and signature lines `— <name> <base64 of key id and signature>`.
A checkpoint is a note whose text is origin, size, base64 root, each on its line; further lines are extensions.
Lines of keys that a reader does not know are passed over; one valid line of a known key is needed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from casemate.errors import Malformed, Refused
from casemate.ledger import merkle
from casemate.wire.encoding import b64, unb64

ED25519 = 0x01
MAX_NOTE = 64 << 10
MAX_SIGNATURES = 64
_DASH = "\u2014 "


@dataclass(frozen=True)
class Verifier:
    """A log's public key: its name (no space, no plus) and 32 bytes."""

    name: str
    public: bytes

    @property
    def key_id(self) -> bytes:
        """Four bytes that say which key a line is of; not a digest to rely on."""
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([ED25519]) + self.public).digest()[:4]

    def text(self) -> str:
        """The `vkey` form: name+id+key."""
        return f"{self.name}+{self.key_id.hex()}+{b64(bytes([ED25519]) + self.public)}"

    @staticmethod
    def parse(text: str) -> Verifier:
        """The key that a `vkey` names; its id must be the right one."""
        name, _, rest = text.strip().partition("+")
        number, _, key = rest.partition("+")
        raw = unb64(key, "log key")
        if not _name(name) or len(raw) != 33 or raw[0] != ED25519:
            raise Malformed("log key: <name>+<id>+<base64 of an Ed25519 key> is wanted")
        made = Verifier(name, raw[1:])
        if made.key_id.hex() != number:
            raise Malformed("log key: its id is that of another name or key")
        return made


@dataclass(frozen=True)
class Checkpoint:
    """The state of a log: `size` entries below `root`."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def text(self) -> str:
        """The text that is signed."""
        lines = (self.origin, str(self.size), b64(self.root), *self.extensions)
        return "".join(line + "\n" for line in lines)


def sign(text: str, name: str, public: bytes, signature: bytes) -> str:
    """The note of `text`; `signature` is Ed25519 over its UTF-8."""
    return f"{text}\n{line(name, public, signature)}"


def line(name: str, public: bytes, signature: bytes) -> str:
    """One signature line."""
    return f"{_DASH}{name} {b64(Verifier(name, public).key_id + signature)}\n"


def split(note: str) -> tuple[str, list[tuple[str, bytes, bytes]]]:
    """Text and signatures (name, key id, signature) of a note, none of them verified."""
    if len(note) > MAX_NOTE:
        raise Malformed(f"note: at most {MAX_NOTE} characters are allowed")
    text, gap, tail = note.rpartition("\n\n")
    if not gap or not tail.endswith("\n") or any(ord(c) < 0x20 and c != "\n" for c in note):
        raise Malformed("note: text, an empty line and signature lines are wanted")
    lines = tail[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise Malformed(f"note: at most {MAX_SIGNATURES} signatures are allowed")
    return text + "\n", [_signature(entry) for entry in lines]


def open_note(note: str, keys: tuple[Verifier, ...]) -> tuple[str, tuple[Verifier, ...]]:
    """The text and those of `keys` that signed it; `Refused` when a known key's line is wrong, or none signed."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    text, signatures = split(note)
    known = {(key.name, key.key_id): key for key in keys}
    found: list[Verifier] = []
    for name, number, signature in signatures:
        key = known.get((name, number))
        if key is None:
            continue
        try:
            Ed25519PublicKey.from_public_bytes(key.public).verify(signature, text.encode())
        except (InvalidSignature, ValueError):
            raise _unsigned(f"a wrong signature of {name}") from None
        found.append(key)
    if not found:
        raise _unsigned("none of a known key")
    return text, tuple(found)


def parse_checkpoint(text: str) -> Checkpoint:
    """The checkpoint in a note's text."""
    lines = text.split("\n")
    if len(lines) < 4 or lines[-1] or not lines[0]:
        raise Malformed("checkpoint: origin, size and root are wanted, each on its line")
    origin, size, root = lines[:3]
    if not (size.isascii() and size.isdigit()) or len(size) > 19 or str(int(size)) != size:
        raise Malformed("checkpoint: the size is not a number")
    return Checkpoint(origin, int(size), unb64(root, "checkpoint root", size=merkle.SIZE), tuple(lines[3:-1]))


def _signature(entry: str) -> tuple[str, bytes, bytes]:
    dash, _, rest = entry.partition(" ")
    name, _, value = rest.partition(" ")
    if dash + " " != _DASH or not _name(name):
        raise Malformed("note: a line below the text is no signature line")
    raw = unb64(value, "note signature")
    if len(raw) < 5:
        raise Malformed("note: a signature is too short")
    return name, raw[:4], raw[4:]


def _name(name: str) -> bool:
    return bool(name) and "+" not in name and not any(c.isspace() for c in name)


def _unsigned(found: str) -> Refused:
    return Refused.because(
        "log.signature",
        expected="a signature of a key in the trust file",
        found=found,
        hint="the log's key history is at fault, or somebody else signed this; ask the log's operator",
    )
