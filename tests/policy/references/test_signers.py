"""Whom a relying party names, and how a signer is told from an impostor."""

import dataclasses
import hashlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from casemate.crypto import signatures
from casemate.errors import Malformed, Refused, Unusable
from casemate.policy import references
from casemate.policy.references import Did, Identity, ReferenceTrust, corim, didx509
from casemate.testing import pki
from casemate.testing import references as fake
from casemate.testing.references import EKU, FEED, Publisher
from casemate.wire import cbor
from casemate.wire.encoding import b64u

PUBLISHER = Publisher()
NOW = pki.NOW


def pem(key):
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def failed(call, *arguments):
    with pytest.raises(Refused) as caught:
        call(*arguments)
    return {finding.rule for finding in caught.value.findings if not finding.ok}


def test_files_are_recognised_by_content():
    certificate = PUBLISHER.root.certificate
    files = [
        pem(PUBLISHER.key.public_key()),
        PUBLISHER.spki,
        b"some text\n" + pki.pem(certificate) + pem(pki.p384().public_key()),
        certificate,
        f"{PUBLISHER.did} {FEED}\n\n{PUBLISHER.did} other 12\n".encode(),
        b'{"identity": "a@b.example", "issuer": "https://i.example"}',
        b'{"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1"}',
    ]
    trust = references.load(files)
    assert trust.keys[:2] == (PUBLISHER.spki,) * 2
    assert len(trust.keys) == 3
    assert trust.certificates == (certificate,) * 2
    assert trust.dids == (Did(PUBLISHER.did, FEED), Did(PUBLISHER.did, "other", 12))
    assert trust.identities == (Identity("a@b.example", "https://i.example"),)
    assert trust.trusted_root == files[-1]


@pytest.mark.parametrize(
    "data",
    [
        b"", b"did:x509:0", b"did:x509:0:sha256:AA::eku:1.2", b"did:x509:0 feed x", b"did:x509:0 feed 1 2",
        "did:x509:0 fé".encode(), b"{}", b'{"identity":"a"}', b'{"identity":1,"issuer":"b"}', b"{" * 100,
        b"\x30\x03\x02\x01\x01",
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
        pem(rsa.generate_private_key(65537, 1024).public_key()),
        pem(ec.generate_private_key(ec.SECP256K1()).public_key()),
        b"x" * (references.LIMIT + 1),
    ],
)  # fmt: skip
def test_what_names_nobody_is_malformed(data):
    with pytest.raises(Malformed):
        references.load([data])


def test_a_private_key_is_not_read():
    data = pki.p256().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(Unusable):
        references.load([data])


@pytest.mark.parametrize("make", [pki.p256, pki.p384, pki.rsa2048, ed25519.Ed25519PrivateKey.generate])
def test_signatures_of_each_kind_of_key(make):
    key, other = make(), make()
    public = signatures.load(signatures.spki(key.public_key()))
    name = signatures.algorithm(key)
    signature, envelope = signatures.sign_jose(key, b"text"), signatures.sign_dsse(key, b"text")
    assert signatures.verify_jose(public, name, signature, b"text")
    assert signatures.verify_dsse(public, envelope, b"text")
    assert not signatures.verify_jose(public, name, signature, b"test")
    assert not signatures.verify_dsse(public, envelope, b"test")
    assert not signatures.verify_jose(other.public_key(), name, signature, b"text")
    assert not signatures.verify_dsse(other.public_key(), envelope, b"text")
    for wrong in ("ES256", "ES384", "ES512", "PS256", "EdDSA", "none", "HS256", ""):
        assert wrong == name or not signatures.verify_jose(public, wrong, signature, b"text")
    assert not signatures.verify_jose(public, name, b"", b"text")
    assert not signatures.verify_dsse(public, b"", b"text")
    assert not signatures.verify_jose(None, name, signature, b"text")


def chained(name, root=None, **options):
    """A CoRIM signed below an authority: its chain is in the protected header."""
    issuer = (root or PUBLISHER.root).subordinate("Fake manifest authority")
    parts = fake._Corim(PUBLISHER)
    parts.message.header[33] = [issuer.issue(name, PUBLISHER.key, **options), issuer.certificate]
    return parts.message.sign(cbor.dumps(cbor.Tagged(corim.TAG_CORIM, parts.manifest | {1: [fake._tag(parts.comid)]})))


def test_a_manifest_signed_below_a_named_authority():
    trust = ReferenceTrust(certificates=(PUBLISHER.root.certificate,))
    assert references.read(chained("Signer"), trust, NOW)[0].signer == PUBLISHER.pin
    day = pki.timedelta(days=1)
    old = chained("Signer", window=(NOW - 2 * day, NOW - day))
    assert failed(references.read, old, trust, NOW) == {"reference.signer.validity", "reference.signature"}
    other = chained("Signer", pki.Authority(PUBLISHER.root.name))
    assert failed(references.read, other, trust, NOW) == {"reference.signer.chain", "reference.signature"}
    assert "reference.signer.usage" in failed(references.read, chained("Signer", ca=True), trust, NOW)
    named = dataclasses.replace(trust, keys=(PUBLISHER.spki,))
    assert references.read(old, named, NOW)  # the key itself is named: its certificate says nothing
    assert failed(references.read, PUBLISHER.corim(), trust, NOW) == {"reference.signature"}


def certificates(**options):
    leaf = PUBLISHER.root.issue("Signer", PUBLISHER.key, **options)
    return [leaf, PUBLISHER.root.certificate]


def did(policies, algorithm="sha256"):
    return f"did:x509:0:{algorithm}:{b64u(hashlib.new(algorithm, PUBLISHER.root.certificate).digest())}{policies}"


def extension(value):
    return [(value.oid.dotted_string, value.public_bytes(), False)]


SAN = x509.SubjectAlternativeName(
    [x509.DNSName("signer.example"), x509.UniformResourceIdentifier("https://a.example/b")]
)


@pytest.mark.parametrize(
    ("policies", "good"),
    [
        ("::subject:CN:Signer", True), ("::subject:CN:Signe", False), ("::subject:CN:Signer:O:x", False),
        ("::subject:CN:%53igner", True), ("::san:dns:signer.example", True), ("::san:dns:other.example", False),
        ("::san:uri:https%3A%2F%2Fa.example%2Fb", True), ("::san:email:signer.example", False),
        ("::san:dns:signer.example::subject:CN:Signer", True), ("::san:dns:signer.example::subject:CN:Other", False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_policies_of_a_did(policies, good, algorithm):
    chain = certificates(extensions=extension(SAN))
    key, findings = didx509.resolve(did(policies, algorithm), chain, NOW)
    assert key == PUBLISHER.spki
    assert all(finding.ok for finding in findings) is good


def test_every_policy_of_a_did_must_hold():
    usage = [("2.5.29.37", pki.der(0x30, pki.der_oid(EKU)), False)]
    _, findings = didx509.resolve(did(f"::eku:{EKU}::eku:1.3.6.1.5.5.7.3.3"), certificates(extensions=usage), NOW)
    assert [f.rule for f in findings if not f.ok] == ["reference.signer.eku"]


@pytest.mark.parametrize(
    "text",
    ["did:x509", "did:x509:0:md5:AA::eku:1.2", "did:x509:1:sha256:AA::eku:1.2", did(""), did("::fulcio-issuer:x"),
     did("::eku"), did("::subject:CN"), did("::subject:XX:y"), did("::subject:CN:a:CN:a"), did("::san:ip:1"),
     did("::eku:1.2")[:-20], "did:web:a.example", did("::eku:" + "1" * 3000)],
)  # fmt: skip
def test_what_is_no_did_is_malformed(text):
    with pytest.raises(Malformed):
        didx509.resolve(text, certificates(), NOW)


def test_a_leaf_is_not_its_own_authority():
    """A fingerprint of the leaf would make any self-signed certificate an issuer."""
    chain = certificates()
    named = f"did:x509:0:sha256:{b64u(hashlib.sha256(chain[0]).digest())}::subject:CN:Signer"
    _, findings = didx509.resolve(named, chain, NOW)
    assert [f.rule for f in findings if not f.ok] == ["reference.signer.chain"]
    with pytest.raises(Malformed):
        didx509.resolve(named, chain[:1], NOW)
