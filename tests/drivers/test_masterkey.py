"""Master keys in files, in a real SoftHSM, behind real programs; and what they answer when something is wrong."""

import os
import stat
import sys
import threading
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap
from hypothesis import given, settings
from hypothesis import strategies as st

from casemate.drivers import masterkey
from casemate.drivers.masterkey import ByCommand, InFile, InToken, command
from casemate.drivers.masterkey.command import CommandKey
from casemate.drivers.masterkey.file import FileKey
from casemate.errors import CasemateError, Malformed, Unavailable, Unusable
from casemate.testing import softhsm

DATA = bytes(range(32))
GOOD = """
import base64, json, sys
asked = json.load(sys.stdin)
data = base64.b64decode(asked["data"])
assert asked["version"] == 1 and asked["key_id"] == "projects/x/key"
data = b"kms:" + bytes(b ^ 0x5a for b in data) if asked["act"] == "wrap" else bytes(b ^ 0x5a for b in data[4:])
json.dump({"data": base64.b64encode(data).decode()}, sys.stdout)
"""


def program(folder, text, name="kms"):
    path = folder / name
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(0o700)
    return path


def by_command(folder, text, seconds=10.0):
    return CommandKey([str(program(folder, text))], "projects/x/key", seconds=seconds)


def test_a_command_wraps_and_unwraps(tmp_path):
    key = by_command(tmp_path, GOOD)
    wrapped = key.wrap(DATA)
    assert wrapped.startswith(b"kms:")
    assert key.unwrap(wrapped) == DATA
    assert key.slow


@pytest.mark.parametrize(
    "text",
    [
        "raise SystemExit(3)",
        "print('no json')",
        "print('{\"data\": 5}')",
        'print(\'{"data": "===="}\')',
        'print(\'{"data": ""}\')',
        'print(\'{"data": "AAAA", "more": 1}\')',
        "import sys; sys.stdout.write('x' * 100000)",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "pass",
        GOOD.replace('if asked["act"] == "wrap"', "if True"),  # it never unwraps
        "import sys; sys.stdout.write(sys.stdin.read())",
    ],
)
def test_commands_that_answer_nonsense(tmp_path, text):
    with pytest.raises(CasemateError):
        by_command(tmp_path, text).wrap(DATA)
    with pytest.raises(CasemateError):
        by_command(tmp_path, text).unwrap(b"kms:" + DATA)


@pytest.mark.parametrize(
    "text",
    [
        "import time; time.sleep(60)",
        "import os, time\nif os.fork(): raise SystemExit(0)\ntime.sleep(60)",  # a child that keeps the pipe
        "import os, time\nos.close(1)\ntime.sleep(60)",
    ],
)
def test_a_command_that_hangs_is_ended_with_all_its_children(tmp_path, text):
    began = time.monotonic()
    with pytest.raises(Unavailable, match="did not answer"):
        by_command(tmp_path, text, seconds=0.4).unwrap(b"x")
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("argv", "key_id", "seconds"),
    [
        ((), "k", 1),
        (("kms",), "k", 1),
        (("/nonexistent/kms",), "k", 1),
        (("/bin/true",), "", 1),
        (("/bin/true",), "k", 0),
    ],
)
def test_commands_that_are_refused_at_once(argv, key_id, seconds):
    with pytest.raises(Unusable):
        CommandKey(argv, key_id, seconds=seconds)


@settings(deadline=None)
@given(st.one_of(st.binary(max_size=300), st.text(max_size=80).map(lambda t: b'{"data": "' + t.encode() + b'"}')))
def test_whatever_a_plugin_answers(raw):
    try:
        assert isinstance(command.answered(raw), bytes)
    except Malformed:
        pass


def test_a_file(tmp_path):
    (tmp_path / "master.key").write_bytes(b"m" * 32)
    (tmp_path / "master.key").chmod(0o600)
    key = masterkey.open_(InFile(), tmp_path)
    assert key.unwrap(key.wrap(DATA)) == DATA
    (tmp_path / "master.key").chmod(0o644)
    with pytest.raises(Unusable, match="open to other users"):
        masterkey.open_(InFile(), tmp_path)


@given(st.binary(max_size=100))
def test_other_bytes_are_not_wrapped_keys(data):
    with pytest.raises(Malformed):
        FileKey(b"m" * 32).unwrap(data)


def test_the_same_key_twice_is_refused(tmp_path):
    (tmp_path / "master.key").write_bytes(b"m" * 32)
    (tmp_path / "master.key").chmod(0o600)
    with pytest.raises(Unusable, match="one key"):
        masterkey.open_all([InFile(), InFile()], tmp_path)


# A real token


@pytest.fixture(scope="module")
def token():
    """A token with two master keys, one that can be read out, and two of one id."""
    pytest.importorskip("pkcs11")
    try:
        softhsm.home()
        softhsm.token("unit")
    except Unusable as error:
        pytest.skip(str(error))
    softhsm.key("unit", b"\x01")
    softhsm.key("unit", b"\x02")
    softhsm.key("unit", b"\x03", extractable=True)
    for _ in range(2):
        softhsm.key("unit", b"\x04")
    return "unit"


def in_token(token, key_id="01", **changes):
    given = {"module": softhsm.module(), "token": token, "key_id": key_id, "pin_file": softhsm.home() / "pin"}
    return InToken(**{**given, **changes})


def opened(spec):
    return masterkey.open_(spec, Path("/"))


def test_a_token_wraps_and_only_that_key_unwraps(token):
    one, two = opened(in_token(token)), opened(in_token(token, "02"))
    wrapped = one.wrap(DATA)
    assert len(wrapped) == 40
    assert one.unwrap(wrapped) == DATA
    assert one.ident != two.ident
    with pytest.raises(Malformed):
        two.unwrap(wrapped)
    for i in (0, 17, 39):
        changed = bytearray(wrapped)
        changed[i] ^= 1
        with pytest.raises(Malformed):
            one.unwrap(bytes(changed))
    one.close()
    assert two.unwrap(two.wrap(DATA)) == DATA  # a logout of one must not log the other out
    two.close()
    with pytest.raises(Unavailable, match="closed"):
        two.wrap(DATA)


def test_what_a_token_wraps_is_rfc_3394(token):
    import pkcs11

    softhsm.key("unit", b"\x05")
    key = opened(in_token(token, "05"))
    wrapped = key.wrap(DATA)

    def known():  # the same key made by value, in the clear, shows what the mechanism does
        session = key._token._session
        plain = session.create_object(
            {
                pkcs11.Attribute.CLASS: pkcs11.ObjectClass.SECRET_KEY,
                pkcs11.Attribute.KEY_TYPE: pkcs11.KeyType.AES,
                pkcs11.Attribute.VALUE: b"k" * 32,
                pkcs11.Attribute.TOKEN: False,
                pkcs11.Attribute.WRAP: True,
            }
        )
        carrier = session.create_object(
            {
                pkcs11.Attribute.CLASS: pkcs11.ObjectClass.SECRET_KEY,
                pkcs11.Attribute.KEY_TYPE: pkcs11.KeyType.AES,
                pkcs11.Attribute.VALUE: DATA,
                pkcs11.Attribute.TOKEN: False,
                pkcs11.Attribute.EXTRACTABLE: True,
            }
        )
        return bytes(plain.wrap_key(carrier, mechanism=pkcs11.Mechanism.AES_KEY_WRAP))

    assert aes_key_unwrap(b"k" * 32, softhsm.on_thread(known)) == DATA
    assert len(wrapped) == 40
    key.close()


def test_many_threads_are_put_on_one(token):
    key, failures = opened(in_token(token)), []

    def work():
        for _ in range(40):
            data = os.urandom(32)
            if key.unwrap(key.wrap(data)) != data:
                failures.append(data)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    key.close()


def test_a_session_that_broke_is_opened_anew(token):
    key = opened(in_token(token))
    wrapped = key.wrap(DATA)
    softhsm.on_thread(key._token._session.close)
    assert key.unwrap(wrapped) == DATA
    softhsm.on_thread(key._token._session.close)
    assert key.unwrap(key.wrap(DATA)) == DATA
    key.close()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"key_id": "03"}, "read out"),
        ({"key_id": "04"}, "2 AES keys"),
        ({"key_id": "77"}, "0 AES keys"),
        ({"key_id": "zz"}, "in hex"),
        ({"token": "nowhere"}, "NoSuchToken"),
        ({"module": Path("/nonexistent.so")}, "no PKCS#11 module"),
    ],
)
def test_tokens_and_keys_that_will_not_do(token, changes, said):
    with pytest.raises(Unusable, match=said):
        opened(in_token(**{"token": token, **changes}))


def test_a_wrong_pin_and_a_pin_that_others_can_read(token, tmp_path):
    (tmp_path / "pin").write_text("9999")
    (tmp_path / "pin").chmod(0o600)
    with pytest.raises(Unusable, match="PinIncorrect"):
        opened(in_token(token, pin_file=tmp_path / "pin"))
    (tmp_path / "pin").chmod(stat.S_IRUSR | stat.S_IRGRP)
    with pytest.raises(Unusable, match="open to other users"):
        opened(in_token(token, pin_file=tmp_path / "pin"))


def test_a_program_as_settings_name_it(tmp_path):
    spec = ByCommand(argv=(str(program(tmp_path, GOOD)),), key_id="projects/x/key")
    key = masterkey.open_(spec, tmp_path)
    assert key.unwrap(key.wrap(DATA)) == DATA
