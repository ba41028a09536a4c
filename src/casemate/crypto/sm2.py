"""SM2 signatures with SM3: verification only (GB/T 32918.2-2016, GB/T 32918.5-2017; ISO/IEC 14888-3:2018).

Integer arithmetic of our own, because `cryptography` does not offer SM2. It is not constant-time, which is right for
public keys, public messages and public signatures, and wrong for anything secret: nothing here signs.
"""

from __future__ import annotations

from dataclasses import dataclass

from casemate.crypto import sm3
from casemate.errors import Malformed

SIZE = 32
P = 0xFFFFFFFEFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF00000000FFFFFFFFFFFFFFFF
A = P - 3
B = 0x28E9FA9E9D9F5E344D5A9E4BCF6509A7F39789F515AB8F92DDBCBD414D940E93
N = 0xFFFFFFFEFFFFFFFFFFFFFFFFFFFFFFFF7203DF6B21C6052B53BBF40939D54123
G = (
    0x32C4AE2C1F1981195F9904466A39C9948FE30BBFF2660BE1715A4589334C74C7,
    0xBC3736A2F4F6779C59BDCEE36B692153D0A9877CC62A474002DF32E52139F0A0,
)
MAX_ID = 8191  # bytes; its length in bits goes into two bytes

_Point = tuple[int, int]
_Jacobian = tuple[int, int, int]  # x = X / Z^2, y = Y / Z^3; Z = 0 is the point at infinity
_INFINITY: _Jacobian = (1, 1, 0)


@dataclass(frozen=True)
class PublicKey:
    """A point on the curve, checked when it is made (`Malformed`). The curve's cofactor is 1: no subgroups."""

    x: int
    y: int

    def __post_init__(self) -> None:
        if not (0 <= self.x < P and 0 <= self.y < P) or (self.y**2 - (self.x**3 + A * self.x + B)) % P:
            raise Malformed("SM2 key: the point is not on the curve")

    def octets(self) -> bytes:
        """Both coordinates, big-endian."""
        return self.x.to_bytes(SIZE, "big") + self.y.to_bytes(SIZE, "big")


def verify(key: PublicKey, identity: bytes, message: bytes, r: int, s: int) -> bool:
    """Whether (r, s) is the signature of `message` by the owner of `key`, known as `identity`."""
    if not (1 <= r < N and 1 <= s < N) or len(identity) > MAX_ID:
        return False
    t = (r + s) % N
    if t == 0:
        return False
    point = combine(s, G, t, (key.x, key.y))
    return point is not None and (hashed(key, identity, message) + point[0]) % N == r


def hashed(key: PublicKey, identity: bytes, message: bytes) -> int:
    """e: the SM3 of Z | message, where Z binds curve, key and identity (part 2, section 5.5)."""
    curve = b"".join(number.to_bytes(SIZE, "big") for number in (A, B, *G))
    z = sm3.digest((8 * len(identity)).to_bytes(2, "big") + identity + curve + key.octets())
    return int.from_bytes(sm3.digest(z + message), "big")


def combine(u: int, first: _Point, v: int, second: _Point) -> _Point | None:
    """The sum of u times `first` and v times `second`, None for the point at infinity; both are walked together."""
    one, two = (*first, 1), (*second, 1)
    steps: dict[tuple[int, int], _Jacobian] = {(1, 0): one, (0, 1): two, (1, 1): _add(one, two)}
    found = _INFINITY
    for bit in range(max(u.bit_length(), v.bit_length()) - 1, -1, -1):
        found = _double(found)
        pair = (u >> bit & 1, v >> bit & 1)
        if pair != (0, 0):
            found = _add(found, steps[pair])
    x, y, z = found
    if z == 0:
        return None
    inverse = pow(z, -1, P)
    return x * inverse**2 % P, y * inverse**3 % P


def _double(point: _Jacobian) -> _Jacobian:
    x, y, z = point
    if z == 0 or y == 0:
        return _INFINITY
    square, yy = z * z % P, y * y % P
    slope = 3 * (x - square) * (x + square) % P  # because a = -3
    beta = 4 * x * yy % P
    out = (slope * slope - 2 * beta) % P
    return out, (slope * (beta - out) - 8 * yy * yy) % P, 2 * y * z % P


def _add(one: _Jacobian, two: _Jacobian) -> _Jacobian:
    if one[2] == 0 or two[2] == 0:
        return two if one[2] == 0 else one
    (x1, y1, z1), (x2, y2, z2) = one, two
    zz1, zz2 = z1 * z1 % P, z2 * z2 % P
    u1, u2 = x1 * zz2 % P, x2 * zz1 % P
    s1, s2 = y1 * zz2 * z2 % P, y2 * zz1 * z1 % P
    if u1 == u2:
        return _double(one) if s1 == s2 else _INFINITY
    h, r = (u2 - u1) % P, (s2 - s1) % P
    hh = h * h % P
    hhh, v = h * hh % P, u1 * hh % P
    x3 = (r * r - hhh - 2 * v) % P
    return x3, (r * (v - x3) - s1 * hhh) % P, z1 * z2 * h % P
