import contextlib
import hashlib
import hmac
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.errors import Malformed, Refused
from casemate.image import layers, ocicrypt, packets
from casemate.image import manifest as oci
from casemate.wire.encoding import b64

KID, KEY = "kbs:///default/key/1", bytes(range(32))


def described(data, media_type=oci.OCI_LAYER, **annotations):
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    return oci.Descriptor(media_type, digest, len(data), annotations or None)


def sealed(data=b"layer" * 1000):
    work = ocicrypt.Encryption(described(data))
    stored = b"".join(work.chunks([data[:7], data[7:]]))
    return stored, work.descriptor([packets.wrap(work.secret.encode(), KID, KEY)])


def test_round_trip_by_the_format_alone():
    """Decrypted with nothing but the format's own words: HMAC over ciphertext, one key for both."""
    stored, descriptor = sealed()
    assert descriptor.media_type == oci.OCI_LAYER + "+encrypted"
    assert descriptor.digest == "sha256:" + hashlib.sha256(stored).hexdigest()
    options = json.loads(packets.open_any(ocicrypt.packets(descriptor), lambda _: KEY))
    assert set(options) == {"symkey", "digest", "cipheroptions"}
    secret = ocicrypt.LayerSecret.parse(json.dumps(options).encode())
    assert ocicrypt.public_mac(descriptor) == hmac.new(secret.key, stored, hashlib.sha256).digest()
    assert b"".join(layers.decrypt([stored], secret)) == b"layer" * 1000
    assert secret.digest == "sha256:" + hashlib.sha256(b"layer" * 1000).hexdigest()


def test_every_layer_has_its_own_key():
    assert sealed()[0] != sealed()[0]


def test_secrets_are_not_printed():
    secret = ocicrypt.LayerSecret.fresh("sha256:" + "a" * 64)
    assert repr(secret.key) not in repr(secret)
    assert secret.key.hex() not in repr(secret)


def test_encrypted_twice_is_an_error():
    with pytest.raises(Malformed):
        ocicrypt.Encryption(sealed()[1])


def test_annotations_of_the_plain_layer_stay():
    work = ocicrypt.Encryption(described(b"x", a="b"))
    list(work.chunks([b"x"]))
    assert work.descriptor([b"p"]).annotation("a") == "b"


@pytest.mark.parametrize(
    "public",
    [
        None,
        "%",
        b64(b"[]"),
        b64(b'{"cipher":"AES_128","hmac":""}'),
        b64(b'{"cipher":"AES_256_CTR_HMAC_SHA256"}'),
        b64(b'{"cipher":"AES_256_CTR_HMAC_SHA256","hmac":"AAAA"}'),
        b64(b'{"cipher":"AES_256_CTR_HMAC_SHA256","hmac":7}'),
    ],
)
def test_public_options_refused(public):
    with pytest.raises(Malformed):
        ocicrypt.public_mac(described(b"", **({ocicrypt.PUBOPTS: public} if public else {})))


GOOD = {"symkey": b64(bytes(32)), "digest": "sha256:" + "a" * 64, "cipheroptions": {"nonce": b64(bytes(16))}}


@pytest.mark.parametrize(
    "change",
    [{"symkey": b64(bytes(16))}, {"symkey": None}, {"cipheroptions": {}}, {"cipheroptions": None},
     {"cipheroptions": {"nonce": b64(bytes(12))}}, {"digest": "x"}, {"digest": None}],
)  # fmt: skip
def test_private_options_refused(change):
    ocicrypt.LayerSecret.parse(json.dumps(GOOD).encode())
    with pytest.raises(Malformed):
        ocicrypt.LayerSecret.parse(json.dumps({**GOOD, **change}).encode())


def test_wrapped_keys_are_bounded():
    with pytest.raises(Malformed):
        ocicrypt.packets(described(b"", **{ocicrypt.CASEMATE_PROVIDER: ",".join([b64(b"x")] * 17)}))
    found = ocicrypt.packets(described(b"", **{ocicrypt.PROVIDER + "other": b64(b"y"), "unrelated": "%"}))
    assert found == (b"y",)


@given(st.text(max_size=100))
def test_any_annotation(text):
    layer = described(b"", **{ocicrypt.PUBOPTS: text, ocicrypt.CASEMATE_PROVIDER: text})
    for parse in (ocicrypt.public_mac, ocicrypt.packets):
        with contextlib.suppress(Malformed):
            parse(layer)


def test_intake_judges_before_plaintext():
    stored, descriptor = sealed()
    secret = layers.secret_of(descriptor, packets.open_any(ocicrypt.packets(descriptor), lambda _: KEY))
    for flipped in (0, len(stored) // 2, len(stored) - 1):
        bad = bytearray(stored)
        bad[flipped] ^= 1
        intake = layers.Intake(descriptor, secret, number=1)
        intake.update(bytes(bad))
        with pytest.raises(Refused) as caught:
            intake.finish()
        assert [f.rule for f in caught.value.findings] == ["image.layer.digest", "image.layer.hmac"]


def test_mac_of_another_layer():
    """A registry that knows a manifest's writer could agree on digests; the HMAC still tells."""
    stored, descriptor = sealed()
    _, other = sealed()
    mixed = oci.Descriptor(descriptor.media_type, descriptor.digest, descriptor.size, other.annotations)
    secret = layers.secret_of(mixed, packets.open_any(ocicrypt.packets(mixed), lambda _: KEY))
    intake = layers.Intake(mixed, secret)
    intake.update(stored)
    with pytest.raises(Refused) as caught:
        intake.finish()
    assert [f.rule for f in caught.value.findings] == ["image.layer.hmac"]
