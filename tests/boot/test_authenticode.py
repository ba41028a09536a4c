"""Authenticode digests: against the digest that a signed kernel carries, against hand-made images, and fuzzed."""

from __future__ import annotations

import contextlib
import hashlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.boot import authenticode
from casemate.errors import Malformed


def _pe(sections: list[bytes], *, tail: bytes = b"", certificates: bytes = b"", checksum: int = 0) -> bytes:
    """A PE32+ image with the given sections, unsigned data behind them and a certificate table at its end."""
    optional = bytearray(240)
    struct.pack_into("<H", optional, 0, 0x20B)
    struct.pack_into("<II", optional, 60, 0x200, checksum)
    struct.pack_into("<I", optional, 108, 16)
    body, headers = b"", b""
    for data in sections:
        headers += struct.pack("<8sIIII16x", b".s", len(data), 0x1000, len(data), 0x200 + len(body))
        body += data
    if certificates:
        struct.pack_into("<II", optional, 112 + 32, 0x200 + len(body) + len(tail), len(certificates))
    dos = b"MZ" + bytes(58) + struct.pack("<I", 64)
    coff = b"PE\0\0" + struct.pack("<HHIIIHH", 0x8664, len(sections), 0, 0, 0, len(optional), 0)
    return (dos + coff + bytes(optional) + headers).ljust(0x200, b"\0") + body + tail + certificates


def test_checksum_and_certificates_do_not_count() -> None:
    plain = authenticode.sha256(_pe([b"code", b"data"]))
    assert authenticode.sha256(_pe([b"code", b"data"], checksum=77, certificates=bytes(64))) == plain
    assert authenticode.sha256(_pe([b"code", b"dato"])) != plain
    assert authenticode.sha256(_pe([b"code", b"data"], tail=b"behind")) != plain


def test_the_digest_is_what_the_definition_says() -> None:
    image = _pe([b"code"], tail=b"tail")
    checksum, entry = 64 + 24 + 64, 64 + 24 + 112 + 32
    kept = image[:checksum] + image[checksum + 4 : entry] + image[entry + 8 :]
    assert authenticode.sha256(image) == hashlib.sha256(kept).digest()


@pytest.mark.tools
def test_equal_to_the_digest_in_the_kernels_own_signature() -> None:
    from casemate.host import guestimage

    kernel = guestimage.ensure().kernel.read_bytes()
    # SpcIndirectDataContent ends in DigestInfo: SEQUENCE { SEQUENCE { OID sha256, NULL }, OCTET STRING digest }.
    mark = bytes.fromhex("3031300d060960864801650304020105000420")
    at = kernel.index(mark) + len(mark)
    assert kernel[at : at + 32] == authenticode.sha256(kernel)


@pytest.mark.parametrize(
    "image",
    [
        b"",
        b"MZ",
        b"ELF" + bytes(100),
        b"MZ" + bytes(200),
        _pe([b"code"])[:300],
        _pe([b"code"])[:-1],
        _pe([b"code"], certificates=bytes(8))[:-12] + bytes(2),
    ],
)
def test_what_is_no_image_is_malformed(image: bytes) -> None:
    with pytest.raises(Malformed, match="PE image"):
        authenticode.sha256(image)


@given(st.binary(max_size=600))
def test_any_bytes_give_a_digest_or_malformed(noise: bytes) -> None:
    for image in (noise, _mixed(noise)):
        with contextlib.suppress(Malformed):
            assert len(authenticode.sha256(image)) == 32


def _mixed(noise: bytes) -> bytes:
    image = bytearray(_pe([b"code", b"data"], certificates=bytes(16)))
    for index in range(0, len(noise) - 2, 3):
        image[(noise[index] << 8 | noise[index + 1]) % len(image)] = noise[index + 2]
    return bytes(image)
