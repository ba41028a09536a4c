"""Text encodings, strict: base64 (RFC 4648 section 4), base64url without padding (section 5), hex.

A short value is never padded and a long one never cut (peers did both); the only error is `Malformed`.
"""

from __future__ import annotations

import base64
import binascii

from casemate.errors import Malformed

_URL_SAFE = bytes.maketrans(b"+/", b"-_")


def b64(data: bytes) -> str:
    """Standard base64 with padding."""
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def b64u(data: bytes) -> str:
    """URL-safe base64 without padding."""
    return binascii.b2a_base64(data, newline=False).translate(_URL_SAFE, b"=").decode("ascii")


def unb64(text: str, name: str = "value", *, size: int | None = None) -> bytes:
    """Decode standard base64; `size` demands an exact number of bytes."""
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:  # binascii.Error is one, and so is text beyond ASCII
        raise Malformed(f"{name}: not base64") from error
    return data if size is None else _sized(data, name, size)


def unb64u(text: str, name: str = "value", *, size: int | None = None) -> bytes:
    """Decode base64url without padding; `size` demands an exact number of bytes."""
    try:
        raw = text.encode("ascii")
        if b"=" in raw or b"+" in raw or b"/" in raw:
            raise Malformed(f"{name}: not base64url without padding")
        data = base64.b64decode(raw + b"=" * (-len(raw) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise Malformed(f"{name}: not base64url without padding") from error
    return _sized(data, name, size)


def unhex(text: str, name: str = "value", *, size: int | None = None) -> bytes:
    """Decode hex (no spaces, no prefix); `size` demands an exact number of bytes."""
    try:
        data = bytes.fromhex(text)
        if 2 * len(data) != len(text):  # fromhex passes over white space
            raise ValueError
    except ValueError as error:
        raise Malformed(f"{name}: not hexadecimal") from error
    return data if size is None else _sized(data, name, size)


def _sized(data: bytes, name: str, size: int | None) -> bytes:
    if size is not None and len(data) != size:
        raise Malformed(f"{name}: {len(data)} bytes, {size} wanted")
    return data
