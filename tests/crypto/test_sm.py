"""SM2 and SM3 against the standards' examples, and against OpenSSL where it has them."""

import secrets
import shutil
import subprocess

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, hmac
from hypothesis import given, settings
from hypothesis import strategies as st

from casemate.crypto import der, sm2, sm3
from casemate.errors import Malformed
from casemate.testing.csv import Key

# GB/T 32918.5-2017 (GM/T 0003.5-2012), annex A.2: recommended curve.
STANDARD = sm2.PublicKey(
    0x09F9DF311E5421A150DD7D161E4BC5C672179FAD1833FC076BB08FF356F35020,
    0xCCEA490CE26775A52DC6EA718CC1AA600AED05FBF35E084A6632F6072DA9AD13,
)
SECRET = 0x3945208F7B2144B13F36E38AC6D39F95889393692860B51A42FB81EF4DF7C5B8
NONCE = 0x59276E27D506861A16680F3AD9C02DCCEF3CC1FA3CDBE4CE6D54B80DEAC1BC21
R = 0xF5A03B0648D2C4630EEAC513E1BB81A15944DA3827D5B74143AC7EACEEE720B3
S = 0xB1B6AA29DF212FD8763182BC0D421CA1BB9038FD1F7F42D4840B69C485BBC1AA
IDENTITY, MESSAGE = b"1234567812345678", b"message digest"


def test_sm3_of_the_standard():
    """GB/T 32905-2016, annex A."""
    assert sm3.digest(b"abc").hex() == "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0"
    assert sm3.digest(b"abcd" * 16).hex() == "debe9ff92275b8a138604889c18e5a4d6fdb70e5387e5765293dcba39c0c5732"


def test_own_sm3_is_openssls_at_every_length():
    for size in range(2 * sm3.BLOCK + 2):
        data = secrets.token_bytes(size)
        state = hashes.Hash(hashes.SM3())
        state.update(data)
        assert sm3.own(data) == sm3.digest(data) == state.finalize()


def test_own_sm3_stands_in_where_openssl_has_none(monkeypatch):
    def absent(_algorithm):
        raise UnsupportedAlgorithm("no SM3 here")

    monkeypatch.setattr(hashes, "Hash", absent)
    assert sm3.digest(b"abc").hex().startswith("66c7f0f4")


@pytest.mark.parametrize("size", [0, 1, 16, 64, 65, 200])
def test_hmac_is_cryptographys(size):
    key, data = secrets.token_bytes(size), secrets.token_bytes(77)
    oracle = hmac.HMAC(key, hashes.SM3())
    oracle.update(data)
    assert sm3.mac(key, data) == oracle.finalize()


def test_sm2_of_the_standard():
    assert f"{sm2.hashed(STANDARD, IDENTITY, MESSAGE):064x}".startswith("f0b43e94ba45accaace692ed534382eb")
    assert sm2.combine(SECRET, sm2.G, 0, sm2.G) == (STANDARD.x, STANDARD.y)
    point = sm2.combine(NONCE, sm2.G, 0, sm2.G)
    assert point is not None
    assert (sm2.hashed(STANDARD, IDENTITY, MESSAGE) + point[0]) % sm2.N == R
    assert sm2.verify(STANDARD, IDENTITY, MESSAGE, R, S)


@pytest.mark.parametrize(
    ("identity", "message", "r", "s"),
    [
        (b"1234567812345679", MESSAGE, R, S), (IDENTITY, b"message digesu", R, S), (IDENTITY, MESSAGE, R ^ 1, S),
        (IDENTITY, MESSAGE, R, S ^ 1), (IDENTITY, MESSAGE, 0, S), (IDENTITY, MESSAGE, R, 0),
        (IDENTITY, MESSAGE, R + sm2.N, S), (IDENTITY, MESSAGE, R, S + sm2.N), (IDENTITY, MESSAGE, R, sm2.N - R),
        (IDENTITY, MESSAGE, sm2.N, S), (b"x" * 8192, MESSAGE, R, S),
    ],
)  # fmt: skip
def test_anything_else_is_no_signature(identity, message, r, s):
    assert not sm2.verify(STANDARD, identity, message, r, s)


def test_points_off_the_curve_are_refused():
    for x, y in ((0, 0), (STANDARD.x, STANDARD.y + 1), (STANDARD.x + sm2.P, STANDARD.y), (-1, STANDARD.y)):
        with pytest.raises(Malformed):
            sm2.PublicKey(x, y)


def test_arithmetic_at_its_edges():
    minus = (sm2.G[0], sm2.P - sm2.G[1])
    assert sm2.combine(1, sm2.G, 1, minus) is None
    assert sm2.combine(sm2.N, sm2.G, 0, sm2.G) is None
    assert sm2.combine(0, sm2.G, 0, sm2.G) is None
    assert sm2.combine(1, sm2.G, 1, sm2.G) == sm2.combine(2, sm2.G, 0, sm2.G)
    assert sm2.combine(3, sm2.G, 5, minus) == sm2.combine(2, minus, 0, sm2.G)
    assert sm2.combine(sm2.N - 1, sm2.G, 0, sm2.G) == minus


@settings(max_examples=20, deadline=None)
@given(st.binary(max_size=100), st.binary(min_size=1, max_size=40), st.integers(0, 511))
def test_made_signatures_hold_and_changed_ones_do_not(message, identity, bit):
    key = Key()
    r, s = key.sign(identity, message)
    assert sm2.verify(key.public, identity, message, r, s)
    changed = (r << 256 | s) ^ 1 << bit
    assert not sm2.verify(key.public, identity, message, changed >> 256, changed & (1 << 256) - 1)


def openssl(*arguments, data=None):
    return subprocess.run(["openssl", *arguments], input=data, capture_output=True, check=True).stdout


@pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl here")
def test_signatures_of_openssl_hold(tmp_path):
    try:
        pem = openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:SM2")
    except subprocess.CalledProcessError:
        pytest.skip("this OpenSSL has no SM2")
    (tmp_path / "key.pem").write_bytes(pem)
    point = openssl("pkey", "-pubout", "-outform", "DER", data=pem)[-64:]
    key = sm2.PublicKey(int.from_bytes(point[:32], "big"), int.from_bytes(point[32:], "big"))
    for number in range(8):
        identity, message = f"HYGON-SSD-{number}".encode(), secrets.token_bytes(100 * number + 1)
        (tmp_path / "message").write_bytes(message)
        signature = openssl(
            "pkeyutl", "-sign", "-rawin", "-digest", "sm3", "-inkey", str(tmp_path / "key.pem"),
            "-pkeyopt", f"distid:{identity.decode()}", "-in", str(tmp_path / "message"),
        )  # fmt: skip
        r, s = (int.from_bytes(part.content, "big") for part in der.loads(signature).children())
        assert sm2.verify(key, identity, message, r, s)
        assert not sm2.verify(key, identity, message + b"!", r, s)
