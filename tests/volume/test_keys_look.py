"""Keys of a volume differ in everything that tells volumes apart; a refused disk is named and never shown."""

import itertools

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from casemate.errors import Malformed
from casemate.volume import keys, look

APP, OTHER = "sha256:" + "1" * 64, "sha256:" + "2" * 64


def test_it_is_hkdf():
    made = keys.derive(b"s" * 32, app=APP, name="data", uuid="0a" * 16)
    for purpose, found in (("data", made.data), ("journal", made.journal)):
        info = b"\0".join((b"casemate volume v1", purpose.encode(), APP.encode(), b"data"))
        oracle = HKDF(hashes.SHA256(), len(found), bytes.fromhex("0a" * 16), info).derive(b"s" * 32)
        assert found == oracle


def test_every_part_matters():
    parts = itertools.product((b"s" * 32, b"t" * 32), (APP, OTHER), ("data", "dat"), ("0a" * 16, "0b" * 16))
    made = [keys.derive(secret, app=app, name=name, uuid=uuid) for secret, app, name, uuid in parts]
    assert len({k.data for k in made} | {k.journal[:16] for k in made}) == 2 * 16


def test_a_short_secret_is_malformed_and_keys_are_not_printed():
    with pytest.raises(Malformed):
        keys.derive(b"s" * 16, app=APP, name="data", uuid="0a" * 16)
    made = keys.derive(b"s" * 32, app=APP, name="data", uuid="0a" * 16)
    assert repr(made) == "Keys(...)"


@pytest.mark.parametrize(
    ("head", "rule"),
    [
        (b"", "volume.blank"),
        (bytes(look.PEEK), "volume.blank"),
        (b"LUKS\xba\xbe\0\2" + bytes(4096), "volume.luks_header"),
        (bytes(16384) + b"SKUL\xba\xbe" + bytes(64), "volume.luks_header"),
        (b"\x01" * 4096, "volume.foreign_or_damaged"),
    ],
)
def test_a_refused_disk_is_named(head, rule):
    assert look.finding(head).rule == rule


@given(st.binary(max_size=200))
def test_naming_never_fails_and_never_passes(head):
    assert not look.finding(head).ok
