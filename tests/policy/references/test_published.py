"""Genuine published documents: read as their index says, and refused outside what the relying party named."""

import base64
import dataclasses
import json
from datetime import UTC, datetime

import pytest
from cryptography import x509

from casemate.errors import Malformed, Refused
from casemate.policy import references
from casemate.policy.references import Did, Identity, ReferenceTrust
from casemate.schema.reference import OneOf
from casemate.testing import published

IN_2023 = datetime(2023, 6, 1, tzinfo=UTC)
IN_2025 = datetime(2025, 6, 1, tzinfo=UTC)
LOGGED = datetime(2025, 2, 28, 19, 18, 11, tzinfo=UTC)
DID = "did:x509:0:sha256:I__iuL25oXEVFdTP_aBLx_eT1RPHbCQ_ECBQfYZpt9s::eku:1.3.6.1.4.1.311.76.59.1.2"
FEED = "ContainerPlat-AMD-UVM"
UVM = ReferenceTrust(dids=(Did(DID, FEED, 22),))
PREDICATE = "https://cosign.sigstore.dev/attestation/v1"
PROFILE = "http://example.com/example-profile"
UNSIGNED = ReferenceTrust(allow_unsigned=True, profiles=frozenset({PROFILE}))
CLASS = b"acme-implementation-id-000000001".hex()


def sample(*parts):
    found = published.folder(*parts)
    if found is None:
        pytest.skip("no genuine evidence here: set CASEMATE_EVIDENCE")
    return found.read_bytes()


def corim(name):
    return sample("corim", "corim-base", name)


def failed(data, trust, now):
    with pytest.raises(Refused) as caught:
        references.read(data, trust, now)
    return {finding.rule for finding in caught.value.findings if not finding.ok}


def test_the_endorsement_of_a_utility_vm():
    data = sample("snp", "milan-v2-aci-uvm-policy", "uvm_reference_info.cose")
    (found,) = references.read(data, UVM, IN_2023)
    report = sample("snp", "milan-v2-aci-uvm-policy", "report.bin")
    assert found.registers == {"measurement": OneOf((report[144:192].hex(),))}
    assert (found.tee, found.signer, found.environment) == ("snp", DID, {"feed": FEED, "svn": "22"})
    assert found.issued == datetime(2023, 2, 8, 5, 42, 23, tzinfo=UTC)


@pytest.mark.parametrize(
    ("trust", "now", "rules"),
    [
        (UVM, IN_2025, {"reference.signer.validity"}),
        (UVM, IN_2023.replace(month=1, day=1), {"reference.signer.validity", "reference.issued"}),
        (dataclasses.replace(UVM, dids=(Did(DID, "ConfAKS-AMD-UVM", 0),)), IN_2023, {"reference.feed"}),
        (dataclasses.replace(UVM, dids=(Did(DID, FEED, 23),)), IN_2023, {"reference.svn"}),
        (ReferenceTrust(), IN_2023, {"reference.feed", "reference.signer.did"}),
        (dataclasses.replace(UVM, scope={"tee": "tdx"}), IN_2023, {"reference.scope.tee"}),
    ],
)
def test_the_endorsement_beyond_what_was_named(trust, now, rules):
    assert failed(sample("snp", "milan-v2-aci-uvm-policy", "uvm_reference_info.cose"), trust, now) == rules


def test_the_endorsement_at_its_signing_time():
    data = sample("snp", "milan-v2-aci-uvm-policy", "uvm_reference_info.cose")
    assert references.read(data, dataclasses.replace(UVM, believe_signing_time=True), IN_2025)


@pytest.mark.parametrize("name", ["unsigned-good-corim.cbor", "unsigned-example-corim.cbor"])
def test_unsigned_manifests(name):
    (found,) = references.read(corim(name), UNSIGNED, IN_2025)
    assert len(found.registers["31fb5abf-023e-4992-aa4e-95f9c1503bfa"].values) == 3
    assert found.environment["class-id"] == CLASS
    assert failed(corim(name), dataclasses.replace(UNSIGNED, allow_unsigned=False), IN_2025) == {"reference.signature"}


@pytest.mark.parametrize("name", ["signed-good-corim.cbor", "signed-example-corim.cbor"])
def test_signed_manifests(name):
    trust = references.load([corim("signer_pub.pem")], ReferenceTrust(profiles=frozenset({PROFILE})))
    (found,) = references.read(corim(name), trust, IN_2025)
    assert found.expires == datetime(2025, 12, 31, tzinfo=UTC)
    assert found.signer.startswith("sha256:")
    assert failed(corim(name), trust, IN_2025.replace(year=2026)) == {"reference.expiry"}
    assert failed(corim(name), trust, IN_2025.replace(year=2020)) == {"reference.issued"}
    nobody = dataclasses.replace(trust, keys=())
    assert failed(corim(name), nobody, IN_2025) == {"reference.signature"}


def test_an_extension_profile_must_be_named():
    trust = ReferenceTrust(allow_unsigned=True)
    assert "reference.profile" in failed(corim("unsigned-example-corim.cbor"), trust, IN_2025)


def test_the_profile_of_a_platform():
    (found,) = references.read(corim("cca-platform-valid.cbor"), UNSIGNED, IN_2025)
    assert found.tee == "cca"
    assert set(found.registers) == {"cca.software-component.RSE_BL1_2", "cca.software-component.RSE_BL2"}
    invalid = failed(corim("cca-platform-invalid-digests.cbor"), UNSIGNED, IN_2025)
    assert invalid == {"reference.profile.digests", "reference.corim.digest"}
    invalid = failed(corim("cca-platform-invalid-impl-id.cbor"), UNSIGNED, IN_2025)
    assert invalid == {"reference.profile.implementation-id"}


def bundle():
    pytest.importorskip("sigstore", reason="the extra casemate[sigstore] is not installed")
    data = sample("sigstore", "oci-attestation-bundle", "bundle.sigstore.json")
    raw = json.loads(data)["verificationMaterial"]["certificate"]["rawBytes"]
    certificate = x509.load_der_x509_certificate(base64.b64decode(raw))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    issuer = certificate.extensions.get_extension_for_oid(x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")).value.value
    identity = {"identity": names.get_values_for_type(x509.RFC822Name)[0], "issuer": issuer.decode()}
    root = sample("sigstore", "oci-attestation-bundle", "trusted_root.json")
    base = ReferenceTrust(predicate_types=frozenset({PREDICATE}))
    return data, references.load([root, json.dumps(identity).encode()], base)


def test_a_bundle_at_the_time_of_its_log():
    data, trust = bundle()
    found = references.read(data, trust, LOGGED)
    digest = "sha256:732112270d7e59418a8c080b134b24cabd67d250d0d0147a97ed95ba5c280aa4"
    assert references.artefact(digest, found).ok
    assert found[0].issued == LOGGED
    assert found[0].signer == f"{trust.identities[0].identity}, by {trust.identities[0].issuer}"


def test_a_bundle_beyond_what_was_named():
    data, trust = bundle()
    assert failed(data, trust, LOGGED.replace(year=2024)) == {"reference.issued"}
    assert failed(data, ReferenceTrust(), LOGGED) == {"reference.signer.identity", "reference.predicate"}
    named = trust.identities[0]
    for other in (Identity("somebody@else.example", named.issuer), Identity(named.identity, "https://issuer.example")):
        assert failed(data, dataclasses.replace(trust, identities=(other,)), LOGGED) == {"reference.signature"}
    assert "reference.signer.identity" in failed(data, dataclasses.replace(trust, identities=()), LOGGED)
    assert "reference.signer.identity" in failed(data, dataclasses.replace(trust, trusted_root=b""), LOGGED)


def test_changed_bundles_are_refused():
    data, trust = bundle()
    document = json.loads(data)
    envelope, entry = document["dsseEnvelope"], document["verificationMaterial"]["tlogEntries"][0]
    places = [
        (envelope, "payload"), (envelope["signatures"][0], "sig"), (entry, "canonicalizedBody"),
        (entry["inclusionPromise"], "signedEntryTimestamp"), (entry["inclusionProof"], "rootHash"),
        (document["verificationMaterial"]["certificate"], "rawBytes"),
    ]  # fmt: skip
    for place, name in places:
        good = place[name]
        raw = bytearray(base64.b64decode(good))
        raw[len(raw) // 2] ^= 1
        place[name] = base64.b64encode(bytes(raw)).decode()
        with pytest.raises((Refused, Malformed)):
            references.read(json.dumps(document).encode(), trust, LOGGED)
        place[name] = good
    assert references.read(json.dumps(document).encode(), trust, LOGGED)
    entry["integratedTime"] = str(int(entry["integratedTime"]) + 1)
    with pytest.raises(Refused):
        references.read(json.dumps(document).encode(), trust, LOGGED)
