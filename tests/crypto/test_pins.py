"""The hand-cut SubjectPublicKeyInfo equals that of a full X.509 parser, and a hostile certificate is only Malformed."""

import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from casemate.crypto import pins
from casemate.errors import Malformed


def _certificate(key, algorithm):
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x" * 60)])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now)
    return builder.sign(key, algorithm)


KEYS = [
    (ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()),
    (rsa.generate_private_key(65537, 2048), hashes.SHA256()),
    (ed25519.Ed25519PrivateKey.generate(), None),
]
CERTIFICATE = _certificate(*KEYS[0]).public_bytes(serialization.Encoding.DER)


@pytest.mark.parametrize(("key", "algorithm"), KEYS)
def test_same_key_info_as_the_full_parser(key, algorithm):
    der = _certificate(key, algorithm).public_bytes(serialization.Encoding.DER)
    spki = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert pins.subject_public_key_info(der) == spki
    assert pins.certificate_pin(der) == pins.digest(spki)


@given(st.binary(max_size=400))
def test_random_bytes_are_malformed(data):
    with pytest.raises(Malformed):
        pins.subject_public_key_info(data)


@given(st.integers(0, 120), st.integers(0, 255))
def test_a_changed_byte_is_malformed_or_read(position, value):
    data = bytearray(CERTIFICATE)
    data[position] = value
    try:
        pins.subject_public_key_info(bytes(data))
    except Malformed:
        pass


@pytest.mark.parametrize("text", ["", "sha256:", "sha256:" + "A" * 64, "sha256:" + "0" * 63, "sha512:" + "0" * 64])
def test_a_malformed_pin_never_matches(text):
    assert not pins.matches(text, b"")
