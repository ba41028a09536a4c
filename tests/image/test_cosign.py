import json

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given
from hypothesis import strategies as st

from casemate.errors import Malformed, Refused, Unusable
from casemate.image import cosign
from casemate.image import manifest as oci
from casemate.image import reference as names
from casemate.schema.manifest import Signer

D = "sha256:" + "a" * 64
NAME = "registry.example/demo/app"
IMAGE = names.parse(f"{NAME}@{D}")


def pem(key):
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


KEY = ec.generate_private_key(ec.SECP256R1())
OTHER = ec.generate_private_key(ec.SECP256R1())
SIGNER = Signer(key=cosign.public_pem(pem(KEY)), images=("registry.example/demo/*",))


def signed(text, key=KEY):
    return cosign.Signature(text, key.sign(text, ec.ECDSA(hashes.SHA256())))


def rules(*signatures, image=IMAGE, signers=(SIGNER,)):
    with pytest.raises(Refused) as caught:
        cosign.verify(image, signatures, signers)
    return [finding.rule for finding in caught.value.findings]


def test_round_trip_through_a_manifest():
    made = cosign.sign(NAME, D, pem(KEY))
    body, config = cosign.signature_manifest([made])
    (descriptor, signature) = cosign.stored(oci.parse_image(body))[0]
    assert descriptor.size == len(made.payload)
    assert oci.parse_config(config).rootfs.diff_ids == (descriptor.digest,)
    assert cosign.verify(IMAGE, [cosign.Signature(made.payload, signature)], [SIGNER]).ok


def test_tag():
    assert cosign.tag(D) == "sha256-" + "a" * 64 + ".sig"


def test_payload_is_what_cosign_writes():
    assert cosign.payload(NAME, D) == (
        b'{"critical":{"identity":{"docker-reference":"registry.example/demo/app"},"image":'
        b'{"docker-manifest-digest":"' + D.encode() + b'"},"type":"cosign container image signature"},"optional":null}'
    )


def test_no_signature():
    assert rules() == ["image.signature.missing"]


def test_another_key():
    assert rules(cosign.sign(NAME, D, pem(OTHER))) == ["image.signature.key"]


def test_another_digest():
    assert rules(cosign.sign(NAME, "sha256:" + "b" * 64, pem(KEY))) == ["image.signature.digest"]


def test_another_name():
    assert rules(cosign.sign("registry.example/demo/other", D, pem(KEY))) == ["image.signature.identity"]


def test_tag_in_the_identity_says_nothing():
    assert cosign.verify(IMAGE, [signed(cosign.payload(NAME + ":1.0", D))], [SIGNER]).ok


def test_one_good_signature_is_enough_and_all_failures_are_told():
    bad = [cosign.sign(NAME, D, pem(OTHER)), cosign.sign("registry.example/x", D, pem(KEY))]
    assert cosign.verify(IMAGE, [*bad, cosign.sign(NAME, D, pem(KEY))], [SIGNER]).ok
    assert rules(*bad) == ["image.signature.key", "image.signature.identity"]


def test_key_for_other_repositories():
    """A signer may sign only what the manifest says; a good signature by the wrong one is nothing."""
    other = Signer(key=SIGNER.key, images=("registry.example/other/*",))
    assert rules(cosign.sign(NAME, D, pem(KEY)), signers=[other]) == ["image.signature.signer"]
    known = Signer(key=cosign.public_pem(pem(OTHER)), images=(NAME,))
    assert rules(cosign.sign(NAME, D, pem(KEY)), signers=[other, known]) == ["image.signature.key"]


def test_changed_payload_or_signature():
    made = cosign.sign(NAME, D, pem(KEY))
    assert rules(cosign.Signature(made.payload + b" ", made.signature)) == ["image.signature.key"]
    assert rules(cosign.Signature(made.payload, made.signature[:-1])) == ["image.signature.key"]
    assert rules(cosign.Signature(made.payload, b"")) == ["image.signature.key"]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b'{"critical":[]}',
        b'{"critical":{"image":{},"identity":{},"type":"x"}}',
        json.dumps({"critical": {"image": {"docker-manifest-digest": D}, "identity": {"docker-reference": NAME},
                                 "type": "atomic host"}}).encode(),
        json.dumps({"critical": {"image": {"docker-manifest-digest": 1}, "identity": {"docker-reference": NAME},
                                 "type": "cosign container image signature"}}).encode(),
        json.dumps({"critical": {"image": {"docker-manifest-digest": D}, "identity": {"docker-reference": ""},
                                 "type": "cosign container image signature"}}).encode(),
        cosign.payload(NAME, D).replace(b'"optional":null', b'"critical":{}'),
    ],
)  # fmt: skip
def test_signed_nonsense(text):
    assert rules(signed(text)) == ["image.signature.payload"]


def test_only_pinned_images():
    with pytest.raises(Unusable):
        cosign.verify(names.parse(NAME + ":1"), [], [SIGNER])


def test_keys():
    p384 = ec.generate_private_key(ec.SECP384R1())
    for key in (p384, ed25519.Ed25519PrivateKey.generate()):
        with pytest.raises(Unusable):
            cosign.sign(NAME, D, pem(key))
    with pytest.raises(Unusable):
        cosign.sign(NAME, D, b"no key")
    with pytest.raises(Unusable):
        cosign.sign(NAME, D, b"-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----")
    for text in ("no key", cosign.public_pem(pem(KEY))[:60]):
        with pytest.raises(Malformed):
            cosign.verify(IMAGE, [], [Signer(key=text, images=(NAME,))])


def manifest_with(*layers):
    blob = oci.Descriptor(oci.OCI_CONFIG, D, 2)
    return oci.Manifest(2, blob, layers)


def test_foreign_layers_are_left_out_and_counts_are_bounded():
    good = oci.Descriptor(cosign.MEDIA_TYPE, D, 10, {cosign.ANNOTATION: "AAAA"})
    other = oci.Descriptor("text/plain", D, 10, {cosign.ANNOTATION: "AAAA"})
    bare = oci.Descriptor(cosign.MEDIA_TYPE, D, 10)
    assert len(cosign.stored(manifest_with(good, other, bare))) == 1
    with pytest.raises(Malformed):
        cosign.stored(manifest_with(*[good] * 65))
    with pytest.raises(Malformed):
        cosign.stored(manifest_with(oci.Descriptor(cosign.MEDIA_TYPE, D, 1 << 20, {cosign.ANNOTATION: "AAAA"})))
    with pytest.raises(Malformed):
        cosign.stored(manifest_with(oci.Descriptor(cosign.MEDIA_TYPE, D, 1, {cosign.ANNOTATION: "%"})))


@given(st.binary(max_size=300))
def test_any_signed_bytes(text):
    assert rules(signed(text)) == ["image.signature.payload"]
