"""Wire layout of SIGSTRUCT, an enclave's signature (1808 bytes, little-endian): what Gramine's `.sig` files hold.

Standard: Intel SDM volume 3D, "Enclave Signature Structure (SIGSTRUCT)". RSA of 3072 bits with exponent 3, PKCS #1 v1.5
and SHA-256, over bytes 0 to 127 and 900 to 1027. Q1 and Q2 are helpers for the processor: floor(S^2 / M) and
floor((S^3 - Q1 * S * M) / M).
"""

from __future__ import annotations

from dataclasses import dataclass

from casemate.errors import Malformed
from casemate.wire.cursor import Cursor

SIZE, NUMBER = 1808, 384
HEADER = bytes.fromhex("06000000e10000000000010000000000")
HEADER_2 = bytes.fromhex("01010000600000006000000001000000")


@dataclass(frozen=True)
class Sigstruct:
    """A parsed structure. `date` is as written (BCD, yyyymmdd); `helpers` says whether Q1 and Q2 are right."""

    date: str
    modulus: bytes
    signature: int
    misc_select: bytes
    attributes: bytes
    attribute_mask: bytes
    mr_enclave: bytes
    isv_family_id: bytes
    isv_ext_prod_id: bytes
    isv_prod_id: int
    isv_svn: int
    signed: bytes
    helpers: bool


def parse(data: bytes) -> Sigstruct:
    """Parse the 1808 bytes."""
    if len(data) != SIZE:
        raise Malformed(f"SIGSTRUCT: {len(data)} bytes, {SIZE} wanted")
    read = Cursor(data, "SIGSTRUCT")
    first, _, date, second = read.take(16), read.take(4), read.u32(), read.take(16)
    if (first, second) != (HEADER, HEADER_2):
        raise Malformed("SIGSTRUCT: its headers are others")
    _, reserved = read.take(4), read.take(84)
    modulus, exponent, signature = read.take(NUMBER), read.u32(), read.uint(NUMBER)
    misc_select, _, _, zeros = read.take(4), read.take(4), read.take(2), read.take(2)
    family, attributes, mask = read.take(16), read.take(16), read.take(16)
    mr_enclave, also = read.take(32), read.take(16)
    extended, product, svn = read.take(16), read.u16(), read.u16()
    if exponent != 3 or any(reserved) or any(zeros) or any(also) or any(read.take(12)):
        raise Malformed("SIGSTRUCT: an exponent other than 3, or reserved bytes that are not zero")
    q1, q2 = read.uint(NUMBER), read.uint(NUMBER)
    return Sigstruct(
        date=f"{date:08x}",
        modulus=modulus,
        signature=signature,
        misc_select=misc_select,
        attributes=attributes,
        attribute_mask=mask,
        mr_enclave=mr_enclave,
        isv_family_id=family,
        isv_ext_prod_id=extended,
        isv_prod_id=product,
        isv_svn=svn,
        signed=data[:128] + data[900:1028],
        helpers=_quotients(signature, int.from_bytes(modulus, "little")) == (q1, q2),
    )


def _quotients(s: int, m: int) -> tuple[int, int] | None:
    """Q1 and Q2 of a signature; None where there are none, because it is not smaller than the modulus."""
    if not 0 <= s < m:
        return None
    q1 = s * s // m
    return q1, s * (s * s - q1 * m) // m
