"""JWE against the field's vectors (coco-kbs appendix values) and against joserfc as an independent oracle."""

import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwe as jose
from joserfc.jwk import ECKey

from casemate.crypto import jwe, jwk
from casemate.errors import Malformed

TEE_KEY = ec.derive_private_key(0x00F79470AF24F054CDE1AEDCCD1B381FA688C5D4571D93C502930BED27F73CA0, ec.SECP256R1())
VECTOR = {
    "protected": "eyJhbGciOiJFQ0RILUVTK0EyNTZLVyIsImVuYyI6IkEyNTZHQ00iLCJlcGsiOnsiY3J2IjoiUC0yNTYiLCJrdHkiOiJFQyIsIngi"
    "OiJtdzVtT1pxYnlLLWowUGd3ME9QN2VXMUJCWXhVcjZhN21TWmYwVWxQT3Q0IiwieSI6IjBfekVhNTVOZ0ZLa3hHOFJiSUxqODlLRmdYUVM1RUdIMm"
    "dnazFfV1Q4d3cifX0",
    "encrypted_key": "kzmaLzxIOkgOUFLfCj1JScQSfacxbf93S_R5FK87MvGygSJu9YcVJg",
    "iv": "u7u7u7u7u7u7u7u7",
    "ciphertext": "onQnyhk9ObdT-w",
    "tag": "Iy5AhU2iaWKKLl2jtDK39g",
}


def test_vector_opens():
    assert jwe.open_(VECTOR, TEE_KEY) == b"hello coco"


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP521R1()])
def test_joserfc_reads_what_we_seal(curve):
    key = ec.generate_private_key(curve)
    sealed = jwe.seal(b"a key", jwk.from_public_key(key.public_key()))
    names = ["ECDH-ES+A256KW", "A256GCM"]
    pem = key.private_bytes(*_pem())
    assert jose.decrypt_json(sealed, ECKey.import_key(pem), algorithms=names).plaintext == b"a key"


def test_header_order_is_the_peers():
    sealed = jwe.seal(b"x", jwk.from_public_key(TEE_KEY.public_key()))
    from casemate.wire.encoding import unb64u

    text = unb64u(sealed["protected"]).decode()
    assert text.startswith('{"alg":"ECDH-ES+A256KW","enc":"A256GCM","epk":{"crv":"P-256","kty":"EC","x":"')
    assert " " not in text
    assert list(json.loads(text)["epk"]) == ["crv", "kty", "x", "y"]


@pytest.mark.parametrize("member", ["protected", "encrypted_key", "iv", "ciphertext", "tag"])
def test_a_changed_member_is_refused(member):
    broken = dict(VECTOR)
    broken[member] = ("A" if broken[member][0] != "A" else "B") + broken[member][1:]
    with pytest.raises(Malformed):
        jwe.open_(broken, TEE_KEY)
    with pytest.raises(Malformed):
        jwe.open_({k: v for k, v in VECTOR.items() if k != member}, TEE_KEY)


@given(st.dictionaries(st.sampled_from(list(VECTOR)), st.text() | st.integers() | st.none()))
def test_only_malformed_is_raised(parts):
    with pytest.raises(Malformed):
        jwe.open_({**VECTOR, **parts} if parts and parts != VECTOR else {}, TEE_KEY)


def test_a_point_off_the_curve_is_refused():
    good = jwk.from_public_key(TEE_KEY.public_key())
    with pytest.raises(Malformed):
        jwk.ec_public_key({**good, "y": good["x"]})


def _pem():
    from cryptography.hazmat.primitives import serialization as s

    return s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()
