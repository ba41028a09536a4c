"""SM3 and HMAC-SM3 (GB/T 32905-2016, ISO/IEC 10118-3:2018; RFC 2104): OpenSSL's where it has it, else our own.

For public data only: our own is not constant-time in anything but its length, and slow.
"""

from __future__ import annotations

import struct

SIZE, BLOCK = 32, 64
_START = (0x7380166F, 0x4914B2B9, 0x172442D7, 0xDA8A0600, 0xA96F30BC, 0x163138AA, 0xE38DEE4D, 0xB0FB0E4E)
_MASK = 0xFFFFFFFF
_EARLY, _LATE = 0x79CC4519, 0x7A879D8A


def digest(data: bytes) -> bytes:
    """The 32 bytes of SM3."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes

    try:
        state = hashes.Hash(hashes.SM3())
    except UnsupportedAlgorithm:  # an OpenSSL that was built without it
        return own(data)
    state.update(data)
    return state.finalize()


def mac(key: bytes, data: bytes) -> bytes:
    """HMAC-SM3 (32 bytes)."""
    key = (key if len(key) <= BLOCK else digest(key)).ljust(BLOCK, b"\0")
    inner = digest(bytes(b ^ 0x36 for b in key) + data)
    return digest(bytes(b ^ 0x5C for b in key) + inner)


def own(data: bytes) -> bytes:
    """SM3 in Python, for where OpenSSL lacks it."""
    padded = data + b"\x80" + bytes((55 - len(data)) % BLOCK) + (8 * len(data)).to_bytes(8, "big")
    state: tuple[int, ...] = _START
    for at in range(0, len(padded), BLOCK):
        state = _compress(state, padded[at : at + BLOCK])
    return struct.pack(">8I", *state)


def _compress(state: tuple[int, ...], block: bytes) -> tuple[int, ...]:
    """One block (section 5.3)."""
    words = list(struct.unpack(">16I", block))
    for j in range(16, 68):
        x = words[j - 16] ^ words[j - 9] ^ _rotate(words[j - 3], 15)
        words.append(x ^ _rotate(x, 15) ^ _rotate(x, 23) ^ _rotate(words[j - 13], 7) ^ words[j - 6])
    a, b, c, d, e, f, g, h = state
    for j in range(64):
        early = j < 16
        turned = _rotate(a, 12)
        ss1 = _rotate((turned + e + _rotate(_EARLY if early else _LATE, j % 32)) & _MASK, 7)
        ff = a ^ b ^ c if early else (a & b) | (a & c) | (b & c)
        gg = e ^ f ^ g if early else (e & f) | (~e & _MASK & g)
        tt1 = (ff + d + (ss1 ^ turned) + (words[j] ^ words[j + 4])) & _MASK
        tt2 = (gg + h + ss1 + words[j]) & _MASK
        d, c, b, a = c, _rotate(b, 9), a, tt1
        h, g, f, e = g, _rotate(f, 19), e, tt2 ^ _rotate(tt2, 9) ^ _rotate(tt2, 17)
    return tuple(old ^ new for old, new in zip(state, (a, b, c, d, e, f, g, h), strict=True))


def _rotate(word: int, by: int) -> int:
    return (word << by | word >> (32 - by)) & _MASK if by else word
