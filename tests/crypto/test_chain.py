"""Certificate paths: every rule with a certificate that breaks it, and anything at all."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID, ObjectIdentifier
from hypothesis import given, settings
from hypothesis import strategies as st

from casemate.crypto import chain
from casemate.errors import Malformed
from casemate.testing import pki

NOW = datetime(2026, 11, 21, tzinfo=UTC)
USE = "1.2.3.4"
BITS = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")


def p256() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@dataclass
class Issuer:
    """A key with a name that signs certificates of any kind."""

    name: str = "root"
    key: object = field(default_factory=p256)

    def issue(self, subject: Issuer, *, hash_: object = None, **kind: object) -> bytes:
        """A certificate for `subject`; `kind` has ca, path, bits, uses, days, and extra."""
        ca = kind.get("ca", False)
        bits = kind.get("bits", ("key_cert_sign", "crl_sign") if ca else ("digital_signature",))
        first, last = kind.get("days", (-1, 10))
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(subject.name))
            .issuer_name(name(self.name))
            .public_key(subject.key.public_key())
            .serial_number(kind.get("serial", 7))
            .not_valid_before(NOW + timedelta(days=first))
            .not_valid_after(NOW + timedelta(days=last))
        )
        if "no_constraints" not in kind:
            builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=kind.get("path")), critical=True)
        if bits:
            names = (*BITS, "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
            builder = builder.add_extension(x509.KeyUsage(**{n: n in bits for n in names}), critical=True)
        uses = kind.get("uses", () if ca else (USE,))
        if uses:
            builder = builder.add_extension(x509.ExtendedKeyUsage([ObjectIdentifier(u) for u in uses]), critical=False)
        if "extra" in kind:
            value = x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.9"), b"\x05\x00")
            builder = builder.add_extension(value, critical=kind["extra"])
        algorithm = None if isinstance(self.key, ed25519.Ed25519PrivateKey) else hash_ or hashes.SHA256()
        return builder.sign(self.key, algorithm).public_bytes(Encoding.DER)

    def crl(self, *serials: int, days: tuple[int, int] = (-1, 5)) -> bytes:
        """A revocation list."""
        builder = x509.CertificateRevocationListBuilder().issuer_name(name(self.name))
        builder = builder.last_update(NOW + timedelta(days=days[0])).next_update(NOW + timedelta(days=days[1]))
        for serial in serials:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(NOW).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.DER)


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


ROOT, MIDDLE, LEAF = Issuer("root"), Issuer("middle"), Issuer("leaf")
ROOT_CERT = ROOT.issue(ROOT, ca=True)
MIDDLE_CERT = ROOT.issue(MIDDLE, ca=True, path=0, serial=8)


def walk(*certificates: bytes, roots: tuple[bytes, ...] = (ROOT_CERT,), **more: object) -> chain.Path:
    return chain.walk(certificates, roots, NOW, rule="t", **{"leaf_usages": frozenset({USE}), **more})


def rules(path: chain.Path) -> set[str]:
    assert all(not f.ok and f.expected and f.found and f.hint for f in path.findings)
    return {f.rule for f in path.findings}


@pytest.mark.parametrize(
    "certificates",
    [
        (ROOT.issue(LEAF),),
        (ROOT.issue(LEAF), ROOT_CERT),
        (MIDDLE.issue(LEAF), MIDDLE_CERT),
        (MIDDLE.issue(LEAF), ROOT_CERT, MIDDLE_CERT),
        (MIDDLE.issue(LEAF), MIDDLE_CERT, ROOT_CERT, Issuer("stranger").issue(Issuer())),
    ],
)
def test_paths_that_hold(certificates: tuple[bytes, ...]) -> None:
    path = walk(*certificates)
    assert (path.findings, path.root, path.revocation) == ([], 0, "not checked")
    assert path.leaf_key == chain.load(certificates[0]).key
    assert path.not_after == NOW + timedelta(days=10)


def test_no_path() -> None:
    for certificates, roots in (
        ((MIDDLE.issue(LEAF),), (ROOT_CERT,)),
        ((ROOT.issue(LEAF),), ()),
        ((Issuer("root").issue(LEAF),), (ROOT_CERT,)),  # the same name, another key
        ((), (ROOT_CERT,)),
        ((ROOT.issue(LEAF),) * 6, (ROOT_CERT,)),
    ):
        path = walk(*certificates, roots=roots)
        assert rules(path) == {"t.chain"}
        assert path.root is None


def test_certificates_that_issue_each_other_end_the_walk() -> None:
    a, b = Issuer("a"), Issuer("b")
    assert rules(walk(a.issue(LEAF), b.issue(a, ca=True), a.issue(b, ca=True))) == {"t.chain"}


@pytest.mark.parametrize(
    ("leaf", "more"),
    [
        ({"ca": True, "bits": ("digital_signature",), "uses": (USE,)}, {}),
        ({"bits": ("key_encipherment",)}, {}),
        ({"bits": ("digital_signature", "key_cert_sign")}, {}),
        ({"bits": ()}, {}),
        ({"uses": ("1.2.3.5",)}, {}),
        ({"uses": ()}, {}),
        ({"extra": True}, {}),
        ({}, {"leaf_bit": "key_encipherment"}),
        ({"bits": ("key_encipherment",), "uses": ()}, {"leaf_usages": None}),
    ],
)
def test_leaves_made_for_another_use(leaf: dict[str, object], more: dict[str, object]) -> None:
    assert rules(walk(ROOT.issue(LEAF, **leaf), **more)) == {"t.usage"}


@pytest.mark.parametrize(
    ("leaf", "more"),
    [
        ({"extra": False}, {}),
        ({"no_constraints": True}, {}),
        ({"bits": ("key_encipherment",)}, {"leaf_bit": "key_encipherment"}),
        ({"bits": (), "uses": ()}, {"leaf_usages": None}),
    ],
)
def test_leaves_that_are_fine(leaf: dict[str, object], more: dict[str, object]) -> None:
    assert walk(ROOT.issue(LEAF, **leaf), **more).findings == []


@pytest.mark.parametrize(
    "middle",
    [{"ca": False}, {"ca": True, "bits": ("digital_signature",)}, {"ca": True, "bits": ()}, {"no_constraints": True}],
)
def test_intermediates_that_are_no_authority(middle: dict[str, object]) -> None:
    assert "t.usage" in rules(walk(MIDDLE.issue(LEAF), ROOT.issue(MIDDLE, **{"uses": (), **middle})))


def test_path_lengths_are_kept() -> None:
    second = Issuer("second")
    tooth = walk(second.issue(LEAF), MIDDLE.issue(second, ca=True), MIDDLE_CERT)
    assert rules(tooth) == {"t.usage"}
    assert "path length" in tooth.findings[0].found


@pytest.mark.parametrize(("first", "last"), [(-9, -1), (1, 9)])
def test_validity_of_every_certificate(first: int, last: int) -> None:
    assert rules(walk(ROOT.issue(LEAF, days=(first, last)))) == {"t.validity"}
    assert rules(walk(MIDDLE.issue(LEAF), ROOT.issue(MIDDLE, ca=True, days=(first, last)))) == {"t.validity"}
    assert rules(walk(ROOT.issue(LEAF), roots=(ROOT.issue(ROOT, ca=True, days=(first, last)),))) == {"t.validity"}


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 1024),
        ed25519.Ed25519PrivateKey.generate(),
        ec.generate_private_key(ec.SECP224R1()),
    ],
)
def test_weak_and_unusual_keys(key: object) -> None:
    assert rules(walk(ROOT.issue(Issuer("leaf", key)))) == {"t.usage"}


def test_signatures_that_are_not_accepted() -> None:
    unusual = Issuer("root", ed25519.Ed25519PrivateKey.generate())
    assert rules(walk(unusual.issue(LEAF), roots=(unusual.issue(unusual, ca=True),))) >= {"t.chain"}
    old = Issuer("root", rsa.generate_private_key(65537, 2048))
    root = old.issue(old, ca=True)
    assert walk(old.issue(LEAF), roots=(root,)).findings == []
    assert rules(walk(old.issue(LEAF, hash_=hashes.SHA224()), roots=(root,))) == {"t.chain"}


def test_revocation() -> None:
    certificates = (MIDDLE.issue(LEAF, serial=5), MIDDLE_CERT)
    both = (ROOT.crl(1), MIDDLE.crl(2))
    assert walk(*certificates, crls=both).revocation == "checked"
    assert walk(*certificates, crls=both).not_after == NOW + timedelta(days=5)
    assert walk(*certificates, crls=both[:1]).revocation == "partly checked"
    assert walk(*certificates, crls=(Issuer("middle").crl(5),)).revocation == "not checked"  # of another key
    assert rules(walk(*certificates, crls=(MIDDLE.crl(5),))) == {"t.revoked"}
    assert rules(walk(*certificates, crls=(ROOT.crl(8),))) == {"t.revoked"}
    for days in ((-9, -1), (1, 9)):
        assert rules(walk(*certificates, crls=(ROOT.crl(days=days),))) == {"t.revoked"}
    with pytest.raises(Malformed, match="revocation list"):
        walk(*certificates, crls=(b"nonsense",))


def test_lists_of_an_authority_that_may_not_sign_them_do_not_count() -> None:
    mute = ROOT.issue(MIDDLE, ca=True, bits=("key_cert_sign",))
    path = walk(MIDDLE.issue(LEAF, serial=5), mute, crls=(MIDDLE.crl(5),))
    assert (path.findings, path.revocation) == ([], "not checked")


def test_oversized_certificates_are_malformed() -> None:
    with pytest.raises(Malformed, match="at most"):
        chain.load(bytes(20000))


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    with pytest.raises(Malformed):
        chain.load(data)


GOOD = ROOT.issue(LEAF)


@settings(max_examples=150)
@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_any_changed_byte(position: int, change: int) -> None:
    changed = bytearray(GOOD)
    changed[position] ^= change
    try:
        path = walk(bytes(changed))
    except Malformed:
        return
    signed = 4 + len(x509.load_der_x509_certificate(GOOD).tbs_certificate_bytes)
    assert path.findings or position >= signed  # the outer encoding is malleable, what is signed is not


def _list(root, *extensions):
    name = x509.load_der_x509_certificate(root.certificate).subject
    start, end = pki.NOW - timedelta(days=1), pki.NOW + timedelta(days=1)
    builder = x509.CertificateRevocationListBuilder(name, start, end)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(root.key, hashes.SHA256()).public_bytes(Encoding.DER)


def _point(**limits):
    given = {"full_name": None, "relative_name": None, "only_contains_user_certs": False,
             "only_contains_ca_certs": False, "only_some_reasons": None, "indirect_crl": False,
             "only_contains_attribute_certs": False} | limits  # fmt: skip
    return x509.IssuingDistributionPoint(**given)


@pytest.mark.parametrize(
    ("extension", "critical", "word"),
    [
        (x509.DeltaCRLIndicator(1), True, "delta"),
        (_point(only_contains_attribute_certs=True), True, "some kinds"),
        (_point(only_contains_ca_certs=True), True, "some kinds"),
        (_point(only_contains_user_certs=True), False, "some kinds"),
        (_point(indirect_crl=True), True, "other issuers"),
        (_point(only_some_reasons=frozenset({x509.ReasonFlags.superseded})), True, "some reasons"),
        (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4.5"), b"\x05\x00"), True, "1.2.3.4.5"),
        (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4.5"), b"\x05\x00"), False, ""),
        (x509.CRLNumber(7), False, ""),
        (_point(full_name=[x509.UniformResourceIdentifier("http://pki.example/all.crl")]), True, ""),
    ],
)
def test_a_list_that_does_not_speak_for_all_certificates_is_refused(extension, critical, word):
    root = pki.Authority("A root of lists", pki.p256())
    leaf = root.issue("leaf", pki.p256())
    path = chain.walk([leaf], [root.certificate], pki.NOW, rule="x", leaf_usages=None,
                      crls=[_list(root, (extension, critical))])  # fmt: skip
    if word:
        assert [f.rule for f in path.findings] == ["x.revoked"]
        assert word in path.findings[0].found
        assert path.revocation == "not checked"
    else:
        assert (path.findings, path.revocation) == ([], "checked")
