"""Each format of the fake publisher: read as it is, and refused in each broken way by the rule that is named."""

import dataclasses
from datetime import timedelta

import pytest

from casemate.crypto import signatures
from casemate.errors import Malformed, Refused
from casemate.policy import references
from casemate.policy.references import ReferenceTrust
from casemate.schema.reference import AtLeast, OneOf
from casemate.testing import pki
from casemate.testing.references import BROKEN, FEED, Publisher
from casemate.wire import jcs
from casemate.wire.encoding import b64

PUBLISHER = Publisher()
MAKE = {
    "corim": PUBLISHER.corim,
    "in-toto": PUBLISHER.provenance,
    "uvm": PUBLISHER.uvm,
    "plain": PUBLISHER.plain,
}


def read(data, trust=PUBLISHER.trust, now=PUBLISHER.now):
    return references.read(data, trust, now)


def failed(call, *arguments, **options):
    with pytest.raises(Refused) as caught:
        call(*arguments, **options)
    return {finding.rule for finding in caught.value.findings if not finding.ok}


@pytest.mark.parametrize("kind", MAKE)
def test_a_good_document_is_read(kind):
    found = read(MAKE[kind]())[0]
    assert found.registers == {"measurement": OneOf(("5a" * 48,))}
    assert found.tee == "snp"
    assert found.signer == (PUBLISHER.did if kind == "uvm" else PUBLISHER.pin)
    assert found.source.startswith("sha256:")


@pytest.mark.parametrize(("kind", "broken"), [(kind, name) for kind, faults in BROKEN.items() for name in faults])
def test_each_fault_is_refused_by_its_rule(kind, broken):
    rule, _ = BROKEN[kind][broken]
    assert rule in failed(read, MAKE[kind](broken))


@pytest.mark.parametrize("broken", BROKEN["plain"])
def test_each_fault_of_a_jws_is_refused_by_its_rule(broken):
    assert BROKEN["plain"][broken][0] in failed(read, PUBLISHER.plain(broken, as_jws=True))


def test_a_jws_and_old_provenance_are_read():
    assert read(PUBLISHER.plain(as_jws=True))[0].registers == read(PUBLISHER.plain())[0].registers
    assert read(PUBLISHER.provenance(version=0))[0].registers == read(PUBLISHER.plain())[0].registers


@pytest.mark.parametrize("kind", MAKE)
def test_nobody_is_believed_by_default(kind):
    rule = "reference.signer.did" if kind == "uvm" else "reference.signature"
    for trust in (ReferenceTrust(), ReferenceTrust(allow_unsigned=True)):
        assert rule in failed(read, MAKE[kind](), trust)


@pytest.mark.parametrize("kind", ["corim", "in-toto", "plain"])
def test_unsigned_documents_are_read_where_they_are_allowed(kind):
    trust = dataclasses.replace(PUBLISHER.trust, allow_unsigned=True, keys=())
    found = read(MAKE[kind]("unsigned"), trust)[0]
    assert found.signer == ""
    assert found.registers == {"measurement": OneOf(("5a" * 48,))}


def test_every_failed_rule_is_told():
    found = failed(read, PUBLISHER.corim("expired"), ReferenceTrust(scope={"tee": "tdx"}))
    assert found == {"reference.signature", "reference.expiry"}
    found = failed(
        read, PUBLISHER.plain("other-app"), ReferenceTrust(scope={"tee": "tdx"}), PUBLISHER.now.replace(2040)
    )
    assert found == {"reference.signature", "reference.expiry", "reference.scope.app", "reference.scope.tee"}


def test_subjects_that_are_no_registers_are_artefacts():
    found = read(PUBLISHER.provenance())
    assert references.artefact("sha256:" + "11" * 32, found).ok
    assert references.artefact("sha256:" + "12" * 32, found).rule == "reference.artefact"
    assert not references.artefact("sha1:" + "22" * 20, found).ok  # a weak digest beside a strong one is not believed


def test_a_relying_party_maps_subjects_to_registers():
    trust = dataclasses.replace(PUBLISHER.trust, subjects={"registry.example/image": "pcr4"})
    found = read(PUBLISHER.provenance(), trust)
    assert [r.registers for r in found] == [
        {"measurement": OneOf(("5a" * 48,)), "pcr4": OneOf(("11" * 32,))},
    ]


def test_a_threshold_wants_distinct_keys():
    other = Publisher()
    envelope = jcs.parse_object(PUBLISHER.plain())
    twice = jcs.canonical(envelope | {"signatures": envelope["signatures"] * 2})
    trust = dataclasses.replace(PUBLISHER.trust, keys=(PUBLISHER.spki, other.spki), threshold=2)
    assert failed(read, twice, trust) == {"reference.signature"}
    assert failed(read, twice, dataclasses.replace(trust, keys=(PUBLISHER.spki,) * 2)) == {"reference.signature"}
    from casemate.policy.references import dsse, signed
    from casemate.wire.encoding import unb64

    message = dsse.pae(signed.PAYLOAD_TYPE, unb64(envelope["payload"]))
    second = {"sig": b64(signatures.sign_dsse(other.key, message))}
    both = jcs.canonical(envelope | {"signatures": [*envelope["signatures"], second]})
    assert read(both, trust)[0].signer.count("sha256:") == 2


@pytest.mark.parametrize("make", [pki.p256, pki.p384, pki.rsa2048])
def test_signers_of_every_kind(make):
    publisher = Publisher(key=make())
    for data in (publisher.plain(), publisher.plain(as_jws=True), publisher.provenance(), publisher.corim()):
        assert read(data, publisher.trust)[0].signer == publisher.pin


def test_a_certificate_names_a_signer_while_it_is_valid():
    window = (PUBLISHER.now - timedelta(days=1), PUBLISHER.now + timedelta(days=1))
    certificate = pki.Authority("Fake root").issue("Fake signer", PUBLISHER.key, window=window)
    trust = dataclasses.replace(references.load([pki.pem(certificate)]), builders=frozenset())
    assert read(PUBLISHER.plain(), trust)[0].signer == PUBLISHER.pin
    assert failed(read, PUBLISHER.plain(), trust, PUBLISHER.now + timedelta(days=2)) == {"reference.signature"}


def test_an_old_endorsement_is_read_at_its_signing_time_where_that_is_believed():
    later = PUBLISHER.now + timedelta(days=20)
    window = (PUBLISHER.now - timedelta(days=60), PUBLISHER.now + timedelta(days=10))
    from casemate.testing import references as fake

    parts = fake._Uvm(PUBLISHER)
    parts.chain(PUBLISHER, window=window)
    data = parts.message.sign(jcs.canonical(parts.body))
    assert failed(read, data, now=later) == {"reference.signer.validity"}
    trust = dataclasses.replace(PUBLISHER.trust, believe_signing_time=True)
    assert read(data, trust, later)[0].environment == {"feed": FEED, "svn": "9"}
    assert failed(read, data, trust, later.replace(2018)) == {"reference.issued"}
    del parts.message.header["signingtime"]
    data = parts.message.sign(jcs.canonical(parts.body))
    assert failed(read, data, trust, later) == {"reference.signing-time", "reference.signer.validity"}


def test_endorsements_in_base64_are_read():
    data = b64(PUBLISHER.uvm()).encode() + b"\n"
    assert read(data)[0].format == "uvm"


def test_ages_are_bounded_where_that_is_asked():
    trust = dataclasses.replace(PUBLISHER.trust, max_age=timedelta(hours=12))
    assert failed(read, PUBLISHER.plain(), trust) == {"reference.age"}
    assert read(PUBLISHER.plain(), dataclasses.replace(trust, max_age=timedelta(days=2)))


def test_versions_are_least_ones():
    from casemate.policy.references import signed

    payload = signed.compose(
        name="versions", scope={"tee": "sgx"}, values={"isv_svn": {"at_least": 3}, "mrsigner": ["aa", "bb"]},
        issued=PUBLISHER.now, expires=PUBLISHER.now + timedelta(days=1), signer=PUBLISHER.pin,
    )  # fmt: skip
    found = read(signed.sign(payload, PUBLISHER.key), ReferenceTrust(keys=(PUBLISHER.spki,)))[0]
    assert found.registers == {"isv_svn": AtLeast(3), "mrsigner": OneOf(("aa", "bb"))}
    assert found.plain() is None


def test_a_plain_reference_is_what_a_broker_stores():
    found = read(PUBLISHER.plain())[0].plain()
    assert found is not None
    assert (found.tee, found.values, found.expires.year) == ("snp", PUBLISHER.values, 2027)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{}", b"[]", b"\xd2\x80", b"\xd9\x01\xf5\xa0", b"a.b.c", b"AAAA", b'{"payloadType":"x"}',
        b'{"type":"casemate/reference-values/v1"}', b'{"mediaType":"application/vnd.dev.sigstore.bundle+json"}',
        b" " * (references.LIMIT + 1),
    ],
)  # fmt: skip
def test_what_is_no_document_is_malformed(data):
    with pytest.raises(Malformed):
        read(data)
