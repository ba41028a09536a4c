"""KMAC256 (NIST SP 800-185 section 4) over Keccak-f[1600] (FIPS 202): the libraries at hand have no cSHAKE.

One call derives one key, so that plain Python is quick enough (about a millisecond).
"""

from __future__ import annotations

_RATE = 136
_MASK = (1 << 64) - 1
_ROUNDS = 24


def _constants() -> tuple[list[int], list[tuple[int, int, int]]]:
    """Round constants (FIPS 202 algorithm 5), and for each step of rho and pi: x, y, rotation."""
    register, rounds = 1, []
    for _ in range(_ROUNDS):
        value = 0
        for j in range(7):
            if register & 1:
                value |= 1 << ((1 << j) - 1)
            register = (register << 1) ^ (0x171 if register & 0x80 else 0)
        rounds.append(value)
    steps, x, y = [], 1, 0
    for t in range(24):
        steps.append((x, y, (t + 1) * (t + 2) // 2 % 64))
        x, y = y, (2 * x + 3 * y) % 5
    return rounds, steps


_ROUND_CONSTANTS, _STEPS = _constants()


def kmac256(key: bytes, data: bytes, size: int, custom: bytes = b"") -> bytes:
    """`size` bytes of KMAC256(key, data, 8 * size, custom)."""
    head = _padded(_string(b"KMAC") + _string(custom)) + _padded(_string(key))
    return _sponge(head + data + _right(8 * size), 0x04, size)


def _sponge(data: bytes, suffix: int, size: int) -> bytes:
    padded = bytearray(data)
    padded.append(suffix)
    padded += bytes(-len(padded) % _RATE)
    padded[-1] |= 0x80
    lanes = [0] * 25
    for start in range(0, len(padded), _RATE):
        for i in range(_RATE // 8):
            lanes[i] ^= int.from_bytes(padded[start + 8 * i : start + 8 * i + 8], "little")
        _permute(lanes)
    found = b""
    while len(found) < size:
        if found:
            _permute(lanes)
        found += b"".join(lane.to_bytes(8, "little") for lane in lanes[: _RATE // 8])
    return found[:size]


def _permute(a: list[int]) -> None:
    """Keccak-f[1600]; lane (x, y) stands at x + 5 y."""
    for constant in _ROUND_CONSTANTS:
        c = [a[x] ^ a[x + 5] ^ a[x + 10] ^ a[x + 15] ^ a[x + 20] for x in range(5)]
        for x in range(5):
            d = c[x - 1] ^ _rotated(c[(x + 1) % 5], 1)
            for y in range(0, 25, 5):
                a[x + y] ^= d
        b = [a[0]] + [0] * 24
        for x, y, turn in _STEPS:
            b[y + 5 * ((2 * x + 3 * y) % 5)] = _rotated(a[x + 5 * y], turn)
        for y in range(0, 25, 5):
            for x in range(5):
                a[x + y] = b[x + y] ^ (~b[(x + 1) % 5 + y] & _MASK & b[(x + 2) % 5 + y])
        a[0] ^= constant


def _rotated(lane: int, turn: int) -> int:
    return ((lane << turn) | (lane >> (64 - turn))) & _MASK if turn else lane


def _left(value: int) -> bytes:
    raw = value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big")
    return bytes([len(raw)]) + raw


def _right(value: int) -> bytes:
    raw = value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big")
    return raw + bytes([len(raw)])


def _string(data: bytes) -> bytes:
    return _left(8 * len(data)) + data


def _padded(data: bytes) -> bytes:
    found = _left(_RATE) + data
    return found + bytes(-len(found) % _RATE)
