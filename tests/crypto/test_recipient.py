"""Guests' keys of every form: joserfc and OpenSSL open what is sealed, NIST's sample answers KMAC."""

import json
import subprocess

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwe as oracle
from joserfc.jwk import ECKey

from casemate.crypto import jwk, kmac, recipient, selfsigned
from casemate.errors import Malformed, Refused, Unusable
from casemate.wire.encoding import b64u, unb64u


@pytest.fixture(scope="module")
def rsa_key():
    return rsa.generate_private_key(65537, 2048)


def rsa_jwk(key, alg="RSA-OAEP-256"):
    numbers = key.public_key().public_numbers()
    n = numbers.n.to_bytes(key.key_size // 8, "big")
    return {"kty": "RSA", "alg": alg, "n": b64u(n), "e": b64u(numbers.e.to_bytes(3, "big"))}


def opened(message, cek):
    sealed = unb64u(message["ciphertext"], "c") + unb64u(message["tag"], "t")
    return AESGCM(cek).decrypt(unb64u(message["iv"], "i"), sealed, message["protected"].encode())


def header(message):
    return unb64u(message["protected"], "header").decode()


def test_kmac256_is_nists_sample():
    key, data = bytes(range(0x40, 0x60)), bytes(range(4))
    assert kmac.kmac256(key, data, 64, b"My Tagged Application").hex() == (
        "20c570c31346f703c9ac36c61c03cb64c3970d0cfc787e9b79599d273a68d2f7"
        "f69d4cc3de9d104a351689f27cf6f5951f0103f33f4f24871024d9c27773a8dd"
    )


@pytest.mark.parametrize(("key", "data", "size"), [(b"k" * 32, b"", 24), (b"k" * 200, b"x" * 300, 300)])
def test_kmac256_is_openssls(key, data, size):
    command = ["openssl", "mac", "-macopt", f"hexkey:{key.hex()}", "-macopt", f"size:{size}", "-in", "-", "KMAC256"]
    done = subprocess.run(command, input=data, capture_output=True, check=False)
    if done.returncode:
        pytest.skip("this openssl has no KMAC256")
    assert bytes.fromhex(done.stdout.decode().strip()) == kmac.kmac256(key, data, size)


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP521R1()])
def test_both_curves_open_at_joserfc(curve):
    key = ec.generate_private_key(curve)
    message = recipient.seal(b"hello", jwk.from_public_key(key.public_key()))
    found = oracle.decrypt_json(
        message, ECKey.import_key(selfsigned.key_pem(key)), algorithms=["ECDH-ES+A256KW", "A256GCM"]
    )
    assert found.plaintext == b"hello"


def test_rsa_oaep_is_with_sha256_throughout(rsa_key):
    message = recipient.seal(b"hello", recipient.members({**rsa_jwk(rsa_key), "kid": "dropped"}))
    assert header(message) == '{"alg":"RSA-OAEP-256","enc":"A256GCM"}'
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    assert opened(message, rsa_key.decrypt(unb64u(message["encrypted_key"], "k"), oaep)) == b"hello"


def test_ml_kem_wraps_with_kmac256():
    mlkem = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.mlkem")
    key = mlkem.MLKEM768PrivateKey.generate()
    pub = b64u(key.public_key().public_bytes_raw())
    message = recipient.seal(b"hello", recipient.members({"kty": "AKP", "alg": "ML-KEM-768+A192KW", "pub": pub}))
    told = json.loads(header(message))
    assert list(told) == ["alg", "enc", "ek"]
    kek = recipient.kem_kek(key.decapsulate(unb64u(told["ek"], "ek")))
    assert len(kek) == 24
    assert opened(message, aes_key_unwrap(kek, unb64u(message["encrypted_key"], "k"))) == b"hello"


def test_rsa1_5_is_refused_with_its_reason(rsa_key):
    with pytest.raises(Refused) as refused:
        recipient.members(rsa_jwk(rsa_key, "RSA1_5"))
    assert refused.value.findings[0].rule == "session.key"
    assert "PKCS #1" in refused.value.findings[0].hint


def test_without_ml_kem_in_the_library_the_reason_is_told(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cryptography.hazmat.primitives.asymmetric.mlkem", None)
    with pytest.raises(Unusable, match="ML-KEM"):
        recipient.members({"kty": "AKP", "alg": "ML-KEM-768+A192KW", "pub": b64u(bytes(1184))})


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"kty": 1},
        {"kty": []},
        {"kty": "oct", "k": "AA"},
        {"kty": "RSA", "alg": "RSA-OAEP-256", "n": b64u(b"\xff" * 128), "e": "AQAB"},
        {"kty": "RSA", "alg": "RSA-OAEP-256", "n": b64u(b"\xff" * 256), "e": "Aw"},
        {"kty": "RSA", "alg": "RSA-OAEP-256", "n": b64u(b"\xff" * 255 + b"\xfe"), "e": "AQAB"},
        {"kty": "RSA", "alg": "RSA-OAEP-256", "n": "A" * 5000, "e": "AQAB"},
        {"kty": "RSA", "alg": "RSA-OAEP", "n": b64u(b"\xff" * 256), "e": "AQAB"},
        {"kty": "AKP", "alg": "ML-KEM-768+A192KW", "pub": "AA"},
        {"kty": "AKP", "alg": "ML-KEM-1024", "pub": "AA"},
        {"kty": "EC", "crv": "P-256", "alg": "ECDH-ES", "x": "AA", "y": "AA"},
        {"kty": "EC", "crv": "P-384", "alg": "ECDH-ES+A256KW", "x": "AA", "y": "AA"},
    ],
)
def test_keys_that_cannot_be_used(bad):
    with pytest.raises(Malformed):
        recipient.members(bad)


_TEXT = st.text(max_size=60) | st.binary(max_size=1200).map(b64u) | st.none() | st.integers()


@given(
    st.fixed_dictionaries(
        {"kty": st.sampled_from(["EC", "RSA", "AKP", "oct"]) | _TEXT},
        optional=dict.fromkeys(("crv", "x", "y", "n", "e", "pub"), _TEXT)
        | {"alg": st.sampled_from(["RSA-OAEP-256", "ECDH-ES+A256KW", "ML-KEM-768+A192KW", "RSA1_5"])},
    )
)
def test_any_object_is_a_key_or_malformed(found):
    try:
        kept = recipient.members(found)
    except (Malformed, Refused):
        return
    recipient.seal(b"x", kept)
