import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.errors import Malformed, Refused
from casemate.image import packets
from casemate.wire.encoding import b64

KID = "kbs:///default/key/1"
KEY = bytes(range(32))
# The form with fixed values: key bytes 00..1f, iv of zeros, plaintext {"symkey":"x"}.
VECTOR = (
    b'{"kid":"kbs:///default/key/1","wrapped_data":"dZ7Gp9hH5sQqkotNOlFwyZ4XyQ2AW0BzyuDDN4l3",'
    b'"iv":"AAAAAAAAAAAAAAAA","wrap_type":"A256GCM"}'
)


def test_vector():
    packet = packets.parse(VECTOR)
    assert packet.kid == KID
    assert packets.unwrap(packet, KEY) == b'{"symkey":"x"}'


@pytest.mark.parametrize("version", [1, 2])
def test_round_trip(version):
    data = packets.wrap(b"secret", KID, KEY, version=version)
    assert ("version" in json.loads(data)) is (version == 2)
    assert packets.unwrap(packets.parse(data), KEY) == b"secret"
    assert data != packets.wrap(b"secret", KID, KEY, version=version)


def test_counter_mode_is_read():
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    iv = bytes(16)
    wrapped = Cipher(algorithms.AES(KEY), modes.CTR(iv)).encryptor().update(b"secret")
    data = json.dumps({"kid": KID, "wrapped_data": b64(wrapped), "iv": b64(iv), "wrap_type": "A256CTR"}).encode()
    assert packets.unwrap(packets.parse(data), KEY) == b"secret"


def test_another_key_is_refused_without_naming_it():
    with pytest.raises(Refused) as caught:
        packets.unwrap(packets.parse(VECTOR), bytes(32))
    assert caught.value.findings[0].rule == "image.key"
    assert KID in caught.value.findings[0].expected


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_key_size(size):
    with pytest.raises(Refused):
        packets.unwrap(packets.parse(VECTOR), bytes(size))
    with pytest.raises(Refused):
        packets.wrap(b"x", KID, bytes(size))


@pytest.mark.parametrize(
    "change",
    [
        {"kid": "kbs:///a/b"},
        {"kid": "kbs://host/a/b/c"},
        {"kid": "https://x/a/b/c"},
        {"kid": "kbs:///a/b/c\n"},
        {"kid": "kbs:///a/../c"},
        {"kid": 1},
        {"kid": None},
        {"wrapped_data": "%"},
        {"wrapped_data": None},
        {"iv": "AAAA"},
        {"iv": None},
        {"wrap_type": "A128GCM"},
        {"wrap_type": "none"},
        {"wrap_type": ["A256GCM"]},
        {"version": "0.2.0"},
        {"version": 1},
        {"provider": "kms"},
    ],
)
def test_refused(change):
    with pytest.raises(Malformed):
        packets.parse(json.dumps({**json.loads(VECTOR), **change}).encode())


def test_first_key_that_opens_wins_and_all_failures_are_told():
    ours, theirs = packets.wrap(b"s", KID, KEY), packets.wrap(b"s", "kbs:///other/key/1", bytes(32))

    def keys(uri):
        if uri == KID:
            return KEY
        raise Refused.because("broker.resource", expected="a grant", found=uri)

    assert packets.open_any((theirs, ours), keys) == b"s"
    with pytest.raises(Refused) as caught:
        packets.open_any((theirs, packets.wrap(b"s", KID, bytes(32))), keys)
    assert [f.rule for f in caught.value.findings] == ["broker.resource", "image.key"]
    with pytest.raises(Refused):
        packets.open_any((), keys)


@given(st.binary(max_size=200))
def test_any_bytes(data):
    with pytest.raises(Malformed):
        packets.parse(data)


@given(
    st.sampled_from(sorted(json.loads(VECTOR))), st.none() | st.integers() | st.text(max_size=40) | st.lists(st.text())
)
def test_any_value(member, value):
    with contextlib.suppress(Malformed, Refused):
        packets.unwrap(packets.parse(json.dumps({**json.loads(VECTOR), member: value}).encode()), KEY)
