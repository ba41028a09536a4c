"""Encryption at rest: bound to its place, to its master key, and to every bit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.broker.vault import Vault
from casemate.drivers.masterkey.file import FileKey
from casemate.errors import Malformed, Unusable

VAULT = Vault(b"m" * 32)
FIRST = (
    "434d56310ad155ddb8ddd708000102030405060708090a0b46b873f643b5b75b9e10ccd68f1ce1a0aa734771fd72cb4ffc9e2ce83b014c95"
    "784f5c4cf3b9d24c58a9db536ab3348c0c0d0e0f1011121314151617f99049b71312dc2556463db09685f6104a4011e3bfe1babd194b36ff"
)


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


# Several master keys, and a change of them


class Counted:
    """A slow master key that counts how often it is asked."""

    kind, slow = "counted", True

    def __init__(self, key):
        self._key, self.asked, self.closed = FileKey(key), 0, False
        self.ident = self._key.ident

    def wrap(self, key):
        return self._key.wrap(key)

    def unwrap(self, wrapped):
        self.asked += 1
        return self._key.unwrap(wrapped)

    def close(self):
        self.closed = True


def test_a_value_of_the_first_format_opens_and_is_wrapped_anew():
    """Made by the first release, with the master key of 32 m's."""
    first = bytes.fromhex(FIRST)
    assert VAULT.open("resource:a/b/c:1", first) == b"an old value"
    with pytest.raises(Malformed):
        VAULT.open("resource:a/b/c:2", first)
    fresh = VAULT.rewrap("resource:a/b/c:1", first)
    assert VAULT.open("resource:a/b/c:1", fresh) == b"an old value"
    assert VAULT.rewrap("resource:a/b/c:1", fresh) is None


def test_wrapping_anew_leaves_the_value_as_it_is():
    old, both = Vault(b"o" * 32), Vault([FileKey(b"n" * 32), FileKey(b"o" * 32)])
    sealed = old.seal("a", b"value" * 100)
    fresh = both.rewrap("", sealed)
    assert fresh[:12] == both.head
    assert fresh[-500:] == sealed[-500:]
    assert Vault(b"n" * 32).open("a", fresh) == b"value" * 100
    with pytest.raises(Malformed):
        both.open("b", fresh)


def test_a_slow_key_is_asked_once_for_one_value():
    key = Counted(b"m" * 32)
    vault = Vault([key])
    sealed = vault.seal("a", b"x")
    assert [vault.open("a", sealed) for _ in range(5)] == [b"x"] * 5
    assert key.asked == 1


def test_settings_that_change_are_read_anew_and_bad_ones_change_nothing():
    stamp, named = [1], [FileKey(b"o" * 32)]

    def reread():
        if not named:
            raise Unusable("broken settings")
        return tuple(named)

    old = Counted(b"o" * 32)
    vault = Vault([old], reread=reread, stamp=lambda: stamp[0])
    sealed = vault.seal("a", b"x")
    named.insert(0, FileKey(b"n" * 32))
    stamp[0] += 1
    assert vault.seal("a", b"y")[:12] == Vault(b"n" * 32).head
    assert vault.open("a", sealed) == b"x"
    assert not old.closed
    named.clear()
    stamp[0] += 1
    assert vault.open("a", vault.seal("a", b"z")) == b"z"
    with pytest.raises(Unusable, match="broken"):
        vault.reload()
    named.append(FileKey(b"n" * 32))
    vault.reload()
    assert old.closed
    with pytest.raises(Unusable, match="another master key"):
        vault.open("a", sealed)


def test_a_value_of_a_key_that_another_replica_has_already():
    stamp = [1]
    vault = Vault(b"o" * 32, reread=lambda: (FileKey(b"o" * 32), FileKey(b"n" * 32)), stamp=lambda: stamp[0])
    sealed = Vault(b"n" * 32).seal("a", b"x")
    stamp[0] += 1
    assert vault.open("a", sealed) == b"x"
