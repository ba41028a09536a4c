"""Encryption at rest: bound to its place, to its master key, and to every bit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.broker.vault import Vault
from casemate.errors import Malformed, Unusable

VAULT = Vault(b"m" * 32)


@given(st.binary(max_size=300), st.text(max_size=40))
def test_what_was_sealed_opens(value, label):
    assert VAULT.open(label, VAULT.seal(label, value)) == value


def test_two_seals_of_one_value_differ():
    assert VAULT.seal("a", b"same") != VAULT.seal("a", b"same")


def test_another_place():
    with pytest.raises(Malformed):
        VAULT.open("resource:a/b/c:2", VAULT.seal("resource:a/b/c:1", b"old"))


def test_another_master_key():
    with pytest.raises(Unusable, match="another master key"):
        Vault(b"n" * 32).open("a", VAULT.seal("a", b"x"))


def test_every_flipped_bit():
    sealed = VAULT.seal("a", b"value")
    for i in range(len(sealed)):
        changed = bytearray(sealed)
        changed[i] ^= 1
        with pytest.raises((Malformed, Unusable)):
            VAULT.open("a", bytes(changed))


@given(st.binary(max_size=200))
def test_other_bytes(data):
    with pytest.raises((Malformed, Unusable)):
        VAULT.open("a", data)


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_master_keys_of_another_size(size):
    with pytest.raises(Unusable):
        Vault(b"x" * size)
