"""SIGSTRUCT: MRENCLAVE and MRSIGNER, its signature, every byte of it changed."""

import hashlib

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from casemate.errors import Malformed, Refused, Unusable
from casemate.schema.launch import Launch
from casemate.tee import sgx
from casemate.tee.sgx import sigstruct as wire
from casemate.tee.sgx.measure import sigstruct

ENCLAVE = hashlib.sha256(b"pages").digest()


def signed() -> bytes:
    """A structure as a signing tool writes it."""
    key = rsa.generate_private_key(public_exponent=3, key_size=3072)
    modulus = key.public_key().public_numbers().n
    head = wire.HEADER + bytes(4) + (0x20260102).to_bytes(4, "little") + wire.HEADER_2 + bytes(4 + 84)
    body = bytes(4) + b"\xff" * 4 + bytes(4) + b"f" * 16 + b"\4" + bytes(7) + b"\3" + bytes(7) + b"\xff" * 16
    body += ENCLAVE + bytes(16) + b"x" * 16 + (7).to_bytes(2, "little") + (9).to_bytes(2, "little")
    s = int.from_bytes(key.sign(head + body, padding.PKCS1v15(), hashes.SHA256()), "big")
    q1 = s * s // modulus
    q2 = (s**3 - q1 * s * modulus) // modulus
    numbers = modulus.to_bytes(384, "little"), s.to_bytes(384, "little")
    tail = bytes(12) + q1.to_bytes(384, "little") + q2.to_bytes(384, "little")
    return head + numbers[0] + (3).to_bytes(4, "little") + numbers[1] + body + tail


GOOD = signed()


def test_registers_of_a_sigstruct():
    assert len(GOOD) == wire.SIZE
    found = sigstruct(GOOD)
    signer = hashlib.sha256(GOOD[128:512]).hexdigest()
    assert (found.tee, found.values) == ("sgx", {"mr_enclave": ENCLAVE.hex(), "mr_signer": signer})
    assert sgx.measure(Launch(image=GOOD)) == found
    parsed = wire.parse(GOOD)
    assert (parsed.date, parsed.isv_prod_id, parsed.isv_svn) == ("20260102", 7, 9)
    assert parsed.isv_ext_prod_id == b"x" * 16
    with pytest.raises(Unusable):
        sgx.measure(Launch())


def test_every_changed_byte_is_refused():
    counts = {Malformed: 0, Refused: 0}
    for offset in range(len(GOOD)):
        with pytest.raises((Malformed, Refused)) as caught:
            sigstruct(GOOD[:offset] + bytes([GOOD[offset] ^ 1]) + GOOD[offset + 1 :])
        counts[type(caught.value)] += 1
    print(f"SIGSTRUCT: {len(GOOD)} bytes changed, {counts}")


def test_sizes():
    for data in (b"", GOOD[:-1], GOOD + b"\0"):
        with pytest.raises(Malformed):
            sigstruct(data)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=64), st.integers(0, wire.SIZE))
def test_fuzz(data, offset):
    for candidate in ((GOOD[:offset] + data + GOOD[offset + len(data) :])[: wire.SIZE], data.ljust(wire.SIZE, b"\0")):
        try:
            sigstruct(candidate)
        except (Malformed, Refused):
            pass
