"""Tokens and key sets of others: what is good verifies, everything else is refused, nothing crashes."""

import base64
import json

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from casemate.crypto import jws
from casemate.errors import Malformed
from casemate.testing.issuer import ALGORITHMS, FakeIssuer, compact, new_key
from casemate.wire.encoding import b64u

ISSUERS = {name: FakeIssuer(algorithm=name) for name in ALGORITHMS}
MODULUS = b64u(rsa.generate_private_key(65537, 2048).public_key().public_numbers().n.to_bytes(256, "big"))


@pytest.fixture(params=ALGORITHMS)
def issuer(request):
    return ISSUERS[request.param]


def signed(token, *keys):
    return any(jws.parse(token).signed_by(key) for key in keys)


def test_a_token_of_each_algorithm(issuer):
    token = jws.parse(issuer.token(role="owner"))
    (key,) = jws.keys(issuer.jwks())
    assert token.signed_by(key)
    assert (token.kid, key.kid, token.claims["role"]) == ("k1", "k1", "owner")


def test_ed25519_by_its_new_name():
    issuer = ISSUERS["EdDSA"]
    token = compact(issuer.key, {"alg": "Ed25519", "kid": "k1"}, issuer.claims())
    assert signed(token, *jws.keys(issuer.jwks()))
    (key,) = jws.keys(json.dumps({"keys": [{**issuer.jwk(), "alg": "Ed25519"}]}).encode())
    assert signed(token, key)


def test_another_key_and_another_message(issuer):
    (key,) = jws.keys(issuer.jwks())
    other = jws.of(new_key(issuer.algorithm).public_key())
    token = issuer.token()
    head, body, signature = token.split(".")
    changed = b64u(json.dumps({**issuer.claims(), "role": "owner"}).encode())
    assert not signed(token, other)
    assert not signed(f"{head}.{changed}.{signature}", key)
    cut = b64u(base64.urlsafe_b64decode(signature + "==")[:-1])
    assert not signed(f"{head}.{body}.{cut}", key)


@pytest.mark.parametrize("named", ["none", "None", "HS256", "ES384", "PS256", "RS512", "", "ES256K", 1, None])
def test_algorithms_that_have_no_place_here(issuer, named):
    with pytest.raises(Malformed):
        jws.parse(compact(issuer.key, {"alg": named, "kid": "k1"}, issuer.claims()))


@pytest.mark.parametrize("named", ALGORITHMS)
def test_the_algorithm_is_the_keys_never_the_tokens(issuer, named):
    (key,) = jws.keys(issuer.jwks())
    token = compact(issuer.key, {"alg": named, "kid": "k1"}, issuer.claims())
    assert signed(token, key) is (named == issuer.algorithm)


def test_a_public_key_is_no_hmac_secret(issuer):
    pem = issuer.key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    for named in ("HS256", issuer.algorithm):
        token = compact(pem, {"alg": named, "kid": "k1"}, issuer.claims())
        try:
            assert not signed(token, *jws.keys(issuer.jwks()))
        except Malformed:
            assert named == "HS256"


def test_no_signature_at_all(issuer):
    with pytest.raises(Malformed):
        jws.parse(compact(None, {"alg": "none"}, issuer.claims()))
    with pytest.raises(Malformed):
        jws.parse(compact(None, {"alg": issuer.algorithm}, issuer.claims()))


@pytest.mark.parametrize(
    "header",
    [
        {"crit": ["exp"]},
        {"crit": []},
        {"b64": False},
        {"kid": 1},
        {"kid": ["k1"]},
        {"typ": "casemate-app+jws"},
        {"typ": ["JWT"]},
        {"typ": "logout+jwt"},
    ],
)
def test_headers_that_ask_for_more(issuer, header):
    with pytest.raises(Malformed):
        jws.parse(issuer.token(header=header))


def test_keys_that_a_token_brings_along_count_for_nothing(issuer):
    stranger = FakeIssuer(algorithm=issuer.algorithm)
    told = {"jwk": stranger.jwk(), "jku": "https://evil.example/keys", "x5u": "https://evil.example/x"}
    token = jws.parse(stranger.token(header=told))
    assert not token.signed_by(*jws.keys(issuer.jwks()))


@pytest.mark.parametrize(
    ("header", "claims"),
    [
        (b'{"alg":"none","alg":"ES256"}', b"{}"),
        (b'{"alg":"ES256","alg":"ES256"}', b"{}"),
        (b'{"alg":"ES256"}', b'{"role":"auditor","role":"owner"}'),
        (b'{"alg":"ES256"}', b'{"a":{"b":1,"b":2}}'),
        (b'{"alg":"ES256"}', b"[]"),
        (b'{"alg":"ES256"}', b"1"),
        (b'{"alg":"ES256"}', b"NaN"),
        (b'{"alg":"ES256"}', b'{"exp":NaN}'),
        (b'{"alg":"ES256"}', b'{"exp":Infinity}'),
        (b'{"alg":"ES256"}', b'{"sub":"\\ud800"}'),
        (b'{"alg":"ES256"}', b"\xff\xfe"),
        (b'{"alg":"ES256"}', b"[" * 3000),
        (b'{"alg":"ES256"}', b'{"a":' * 2000 + b"1" + b"}" * 2000),
        (b"ES256", b"{}"),
    ],
)
def test_json_that_two_readers_might_read_differently(header, claims):
    with pytest.raises(Malformed):
        jws.parse(compact(ISSUERS["ES256"].key, header, claims))


@pytest.mark.parametrize("token", ["", ".", "..", "...", "a.b", "a.b.c.d", "a" * 20000, "é.é.é", "=.=.=", "e30.e30."])
def test_forms_that_are_no_token(token):
    with pytest.raises(Malformed):
        jws.parse(token)


def test_a_token_is_bounded(issuer):
    with pytest.raises(Malformed):
        jws.parse(issuer.token(pad="x" * jws.MAX_TOKEN))


def entry(**changes):
    made = {**ISSUERS["ES256"].jwk(), **changes}
    return {name: value for name, value in made.items() if value is not None}


@pytest.mark.parametrize(
    "useless",
    [
        entry(use="enc"),
        entry(key_ops=["sign"]),
        entry(alg="ES384"),
        entry(alg="HS256"),
        entry(alg=1),
        entry(crv="P-384"),
        entry(crv="secp256k1"),
        entry(kty="oct", k="AAAA"),
        entry(x="AAAA"),
        entry(x=None),
        entry(y=1),
        entry(x=b64u(bytes(32)), y=b64u(bytes(32))),
        {"kty": "RSA", "n": MODULUS, "e": "AQ", "kid": "r"},
        {"kty": "RSA", "n": MODULUS, "e": b64u(b"\xff" * 9), "kid": "r"},
        {"kty": "RSA", "n": b64u((1 << 1023 | 1).to_bytes(128, "big")), "e": "AQAB"},
        {"kty": "RSA", "n": b64u(b"\xff" * 4096), "e": "AQAB"},
        {"kty": "OKP", "crv": "X25519", "x": b64u(bytes(32))},
        {"kty": "OKP", "crv": "Ed25519", "x": b64u(bytes(31))},
        {},
    ],
)
def test_keys_of_no_use_are_passed_over(useless):
    good = {**ISSUERS["EdDSA"].jwk(), "kid": "good"}
    assert [key.kid for key in jws.keys(json.dumps({"keys": [useless, good]}).encode())] == ["good"]


def test_a_key_of_another_curve_or_a_short_one_is_none():
    for key in (ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 1024)):
        with pytest.raises(Malformed):
            jws.of(key.public_key())


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys":{}}',
        b'{"keys":[],"keys":[]}',
        json.dumps({"keys": [entry(), entry()]}).encode(),
        json.dumps({"keys": [{}] * (jws.MAX_KEYS + 1)}).encode(),
        b'{"keys":[]' + b" " * jws.MAX_SET + b"}",
    ],
)
def test_sets_that_are_none(document):
    with pytest.raises(Malformed):
        jws.keys(document)


def test_thumbprints_are_those_of_the_standards():
    # RFC 8037 appendix A.3 and RFC 7638 section 3.1
    ed = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
    (key,) = jws.keys(json.dumps({"keys": [ed]}).encode())
    assert jws.thumbprint(key.public) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
    n = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhM"
        "stn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5"
        "hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
    )
    (key,) = jws.keys(json.dumps({"keys": [{"kty": "RSA", "n": n, "e": "AQAB"}]}).encode())
    assert jws.thumbprint(key.public) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=20,
)
HEADER = st.fixed_dictionaries({}, optional=dict.fromkeys(("alg", "kid", "typ", "crit", "b64", "jwk"), JSON))
ENTRY = st.fixed_dictionaries(
    {},
    optional={
        "kty": st.sampled_from(["EC", "RSA", "OKP", "oct"]) | JSON,
        "crv": st.sampled_from(["P-256", "Ed25519"]) | JSON,
        **{name: st.binary(max_size=300).map(b64u) | JSON for name in ("x", "y", "n", "e", "k", "d")},
        **dict.fromkeys(("alg", "use", "kid", "key_ops"), JSON),
    },
)


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=400) | st.tuples(JSON | HEADER, JSON, st.binary(max_size=100)))
def test_fuzz_tokens(said):
    text = (
        said
        if isinstance(said, str)
        else ".".join([*(b64u(json.dumps(one).encode()) for one in said[:2]), b64u(said[2])])
    )
    try:
        token = jws.parse(text)
    except Malformed:
        return
    assert not any(token.signed_by(key) for issuer in ISSUERS.values() for key in jws.keys(issuer.jwks()))


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=400) | st.lists(ENTRY | JSON, max_size=5).map(lambda keys: json.dumps({"keys": keys}).encode())
)
def test_fuzz_sets(document):
    try:
        found = jws.keys(document)
    except Malformed:
        return
    token = jws.parse(ISSUERS["ES256"].token())
    assert not any(token.signed_by(key) for key in found)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(ALGORITHMS), st.data())
def test_fuzz_changed_tokens(name, data):
    issuer = ISSUERS[name]
    good = issuer.token()
    place = data.draw(st.integers(0, len(good) - 1))
    changed = good[:place] + data.draw(st.sampled_from("AZaz09-_.=+é")) + good[place + 1 :]
    try:
        token = jws.parse(changed)
    except Malformed:
        return
    same = jws.parse(good)
    # The last character of base64url may hold bits that say nothing: then message and signature are what they were.
    unchanged = (token.message, token.signature) == (same.message, same.signature)
    assert token.signed_by(*jws.keys(issuer.jwks())) is unchanged
