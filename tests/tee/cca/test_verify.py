from __future__ import annotations

import base64
import json
from importlib import import_module

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from hypothesis import given, settings
from hypothesis import strategies as st

from casemate.errors import Malformed, Refused, Unusable
from casemate.policy import platform
from casemate.schema.endorsements import DEVELOPMENT, PRODUCTION, Anchor, Endorsements
from casemate.schema.evidence import Evidence
from casemate.schema.launch import Launch
from casemate.schema.request import Request
from casemate.tee import cca, room
from casemate.tee.cca import files, keys
from casemate.tee.cca import report as wire
from casemate.tee.files import File, sort
from casemate.testing import pki, published
from casemate.testing.cca import BROKEN, YEARS, FakeRealm
from casemate.wire import cbor
from casemate.wire.encoding import b64, b64u

ASKED = Request(report_data=b"n" * 48, initdata_digest=b"i" * 32)
collecting = import_module("casemate.tee.cca.collect")  # the package has a function of that name
SAMPLES = ("draft-ffm-00-profile", "es256-platform-token", "legacy-profile-token", "negative-rak-binding")


def evidence(token: bytes) -> Evidence:
    return Evidence(tee="cca", primary={"token": list(token)})


def failed(realm, request=ASKED, endorsements=None):
    with pytest.raises(Refused) as caught:
        cca.verify(realm.collect(ASKED), endorsements or realm.endorsements, request, realm.now)
    return {f.rule for f in caught.value.findings if not f.ok}


@pytest.fixture(params=SAMPLES)
def sample(request):
    folder = published.folder("cca", request.param)
    index = published.folder("index.json")
    if folder is None or index is None:
        pytest.skip("no published evidence here: set CASEMATE_EVIDENCE")
    entry = next(s for s in json.loads(index.read_text())["samples"] if s["id"] == f"cca/{request.param}")
    return folder, entry


def case(folder, *names):
    return sort([File(name, (folder / name).read_bytes()) for name in names])


def gathered(folder, *names):
    return files.gather(case(folder, *names))


def judged(found, own, request=None, kind=PRODUCTION):
    endorsements = files.given(own, kind, found.endorsements) or found.endorsements
    return cca.verify(found.evidence, endorsements, request or Request(), pki.NOW)


def test_genuine_samples_with_the_platforms_key(sample):
    folder, entry = sample
    found, own = gathered(folder, "token.cbor"), case(folder, "cpak_pub.pem")
    if entry["verdict"] == "refused":
        with pytest.raises(Refused) as caught:
            judged(found, own)
        assert {f.rule for f in caught.value.findings if not f.ok} == {"cca.binding"}
        return
    facts, claims = entry["facts"], judged(found, own)
    assert all(f.ok for f in platform.judge(claims))
    assert judged(found, own, kind=DEVELOPMENT).platform_class == DEVELOPMENT
    values = claims.values
    assert values["platform"]["cca-platform-profile"] == facts["platform_profile"]
    assert values["realm"]["cca-realm-profile"] == (facts["realm_profile"] or "")
    assert values["implementation_id"] == facts["implementation_id"]
    assert values["instance_id"] == facts["instance_id"]
    assert f"{values['platform']['cca-platform-lifecycle']:#06x}" == facts["lifecycle"]
    assert base64.b64decode(values["platform"]["cca-platform-config"]).hex() == facts["platform_config"]
    assert len(values["platform"]["cca-platform-sw-components"]) == facts["sw_components"]
    assert claims.report_data == facts["realm_challenge"]
    assert claims.measurement["rim"] == facts["realm_initial_measurement"]
    assert values["realm"]["cca-realm-hash-algo-id"] == facts["realm_hash_alg"]
    assert values["realm"]["cca-realm-public-key-hash-algo-id"] == facts["rak_hash_alg"]
    asked = Request(report_data=bytes.fromhex(claims.report_data))
    assert judged(found, own, asked).fresh


def test_genuine_samples_without_a_key_cannot_be_judged(sample):
    folder, entry = sample
    found = gathered(folder, *(p.name for p in folder.iterdir()))
    assert "CPAK" in found.wanted[0]
    assert "cpak_pub.pem" in found.wanted[0]
    if entry["verdict"] != "refused":
        with pytest.raises(Unusable, match="platform-key"):
            judged(found, sort([]))


def test_genuine_samples_with_another_key(sample):
    folder, _ = sample
    found = gathered(folder, "token.cbor")
    with pytest.raises(Refused) as caught:
        cca.verify(found.evidence, FakeRealm().endorsements, Request(), pki.NOW)
    assert "cca.platform.signature" in {f.rule for f in caught.value.findings if not f.ok}


def test_the_published_trust_anchors():
    folder = published.folder("cca", "es256-platform-token")
    if folder is None:
        pytest.skip("no published evidence here: set CASEMATE_EVIDENCE")
    everything = gathered(folder, *(p.name for p in folder.iterdir()))
    good = judged(everything, case(folder, "ta-ok.json"))
    assert good.vouched_by == "the trust anchor of platform 0202020202020202..."
    with pytest.raises(Refused) as caught:
        judged(everything, case(folder, "ta-bad.json"))
    assert [f.rule for f in caught.value.findings if not f.ok] == ["cca.platform.signature"]
    assert files.given(case(folder, "rv.json"), PRODUCTION, Endorsements()) is None


@pytest.mark.parametrize("tag", [wire.TAG, wire.TAG_CMW])
@pytest.mark.parametrize("profile", sorted(YEARS))
def test_every_profile_in_both_collections(profile, tag):
    realm = FakeRealm(profile=profile, tag=tag, key_algorithm="sha-512")
    claims = cca.verify(realm.collect(ASKED), realm.endorsements, ASKED, realm.now)
    assert all(f.ok for f in platform.judge(claims))
    assert claims.fresh
    assert claims.valid_until is None
    assert claims.init_data == (b"i" * 32).hex() + "00" * 32
    assert set(claims.measurement) == {"rim", "rem0", "rem1", "rem2", "rem3"}
    assert claims.vouched_by == "Fake CCA platform"


def test_keys_on_p256():
    realm = FakeRealm(key=pki.p256(), realm_key=pki.p256())
    assert cca.verify(realm.collect(ASKED), realm.endorsements, ASKED, realm.now)


RULES = {
    "platform-signature": {"cca.platform.signature"},
    "platform-key": {"cca.platform.signature"},
    "platform-algorithm": {"cca.platform.signature"},
    "realm-signature": {"cca.realm.signature"},
    "realm-key": {"cca.realm.signature"},
    "binding": {"cca.binding"},
    "binding-algorithm": {"cca.binding"},
    "platform-profile": {"cca.profile"},
    "realm-profile": {"cca.profile"},
    "challenge": {"cca.report_data"},
    "personalization": {"cca.initdata"},
}
STATES = {"debug": True, "recoverable-debug": True, "decommissioned": False, "provisioning": False,
          "unknown-lifecycle": False}  # fmt: skip


@pytest.mark.parametrize("fault", sorted(set(BROKEN) - set(STATES)))
def test_each_fault_is_refused_by_its_rule(fault):
    assert failed(FakeRealm(broken=fault)) == RULES[fault]


@pytest.mark.parametrize("fault", sorted(STATES))
def test_a_platform_that_is_not_secured_is_a_caution(fault):
    realm = FakeRealm(broken=fault)
    claims = cca.verify(realm.collect(ASKED), realm.endorsements, ASKED, realm.now)
    assert claims.debug == STATES[fault]
    assert [f.rule for f in platform.judge(claims) if not f.ok] == ["cca.lifecycle"]
    accepting = platform.PlatformPolicy(cautions=frozenset({"cca.lifecycle"}))
    assert all(f.ok for f in platform.judge(claims, accepting))


def test_the_binding_of_another_year_does_not_count():
    """In the profile of 2026 the challenge is no binding: a token with that alone is refused."""
    realm = FakeRealm(profile="2026", platform={2408: None})
    assert failed(realm) == {"cca.binding"}


def test_a_realm_of_another_platform():
    mine, other = FakeRealm(), FakeRealm()
    first, second = cbor.loads(mine.token()), cbor.loads(other.token())
    mixed = cbor.dumps(cbor.Tagged(399, {44234: first.value[44234], 44241: second.value[44241]}))
    with pytest.raises(Refused) as caught:
        cca.verify(evidence(mixed), mine.endorsements, Request(), mine.now)
    assert {f.rule for f in caught.value.findings if not f.ok} == {"cca.binding"}


def test_a_development_key_makes_development_claims():
    realm = FakeRealm(platform_class=DEVELOPMENT)
    claims = cca.verify(realm.collect(ASKED), realm.endorsements, ASKED, realm.now)
    assert not claims.memory_encrypted
    assert [f.rule for f in platform.judge(claims) if not f.ok] == ["platform.class"]


def test_an_anchor_for_another_tee_does_not_count():
    realm = FakeRealm()
    spki = realm.endorsements.anchors[0].certificate
    with pytest.raises(Unusable, match="platform-key"):
        cca.verify(realm.collect(ASKED), Endorsements(anchors=(Anchor(certificate=spki),)), ASKED, realm.now)


def test_anchors_may_be_certificates_and_of_other_vendors():
    realm = FakeRealm()
    issuer = pki.Authority("A maker of platforms")
    own = Anchor(certificate=issuer.issue("A platform", realm.key), platform_class=PRODUCTION, tees=("cca",))
    others = [
        Anchor(certificate=pki.Authority("Another root", key=key).certificate, tees=("cca", "snp"))
        for key in (pki.rsa2048(), pki.p384())
    ]
    assert cca.verify(realm.collect(ASKED), Endorsements(anchors=(*others, own)), ASKED, realm.now)
    with pytest.raises(Unusable, match="platform-key"):
        cca.verify(realm.collect(ASKED), Endorsements(anchors=tuple(others[:1])), ASKED, realm.now)
    junk = Anchor(certificate=b"junk", tees=("cca",))
    with pytest.raises(Unusable, match="platform-key"):
        cca.verify(realm.collect(ASKED), Endorsements(anchors=(junk,)), ASKED, realm.now)
    authority = Anchor(certificate=issuer.certificate, tees=("cca",))
    assert failed(realm, endorsements=Endorsements(anchors=(authority,))) == {"cca.platform.signature"}


def anchors_of(realm, **changes):
    numbers, width = realm.key.public_key().public_numbers(), 48
    entry = {
        "instance-id": realm.instance.hex(),
        "pkey": {"kty": "EC", "crv": "P-384", "x": b64u(numbers.x.to_bytes(width, "big")),
                 "y": b64u(numbers.y.to_bytes(width, "big"))},
    } | changes  # fmt: skip
    return Endorsements(collateral={"cca.trust-anchors": json.dumps([entry]).encode()})


def test_trust_anchors_count_for_their_platform_alone():
    realm = FakeRealm()
    assert cca.verify(realm.collect(ASKED), anchors_of(realm), ASKED, realm.now).platform_class == DEVELOPMENT
    other = {"instance-id": "01" + "ff" * 32}, {"implementation-id": "ff" * 32}
    for change in other:
        with pytest.raises(Unusable, match="platform-key"):
            cca.verify(realm.collect(ASKED), anchors_of(realm, **change), ASKED, realm.now)


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[]", b"[1]", b'[{"instance-id": "01", "pkey": {}}]', b'[{"instance-id": 1, "pkey": 2}]', b"[" * 9000,
     json.dumps([{"instance-id": "01" * 33, "pkey": {"kty": "EC", "crv": "P-384", "x": "AA", "y": "AA"}}]).encode(),
     json.dumps([{"instance-id": "01" * 33, "pkey": {"kty": "RSA"}}]).encode()],
)  # fmt: skip
def test_malformed_trust_anchors(data):
    with pytest.raises(Malformed):
        keys.trust_anchors(data)


def test_keys_of_other_kinds_are_malformed():
    rsa = pki.rsa2048().public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    for data in (b"", b"x", rsa, b"-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----\n"):
        with pytest.raises(Malformed):
            keys.public_key(data)
    pem = pki.p256().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert keys.public_key(pem).public_numbers() == load_pem_public_key(pem).public_numbers()


def test_report_data_is_neither_cut_nor_padded_into_a_match():
    realm = FakeRealm()
    for wrong in (b"", b"n" * 47, b"n" * 65):
        assert failed(realm, Request(report_data=wrong)) == {"cca.report_data"}
    assert failed(realm, Request(initdata_digest=b"i" * 31)) == {"cca.initdata"}


@pytest.mark.parametrize(
    ("where", "change"),
    [
        ("platform", {2395: 0x7000}), ("platform", {2395: -1}), ("platform", {2395: True}), ("platform", {2395: None}),
        ("platform", {256: b"\x02" + bytes(32)}), ("platform", {256: bytes(32)}), ("platform", {2396: bytes(31)}),
        ("platform", {2399: []}), ("platform", {2399: [1]}), ("platform", {2399: [{2: bytes(32)}]}),
        ("platform", {2399: [{2: bytes(33), 5: bytes(32)}]}), ("platform", {2401: bytes(4097)}),
        ("platform", {265: None}), ("platform", {10: bytes(31)}), ("platform", {2402: 1}),
        ("platform", {2400: "x" * 257}),
        ("realm", {10: bytes(32)}), ("realm", {44235: bytes(32)}), ("realm", {44238: bytes(31)}),
        ("realm", {44239: [bytes(32)] * 3}), ("realm", {44239: [bytes(32)] * 3 + ["x"]}), ("realm", {44237: bytes(97)}),
        ("realm", {44237: b"\x04" + bytes(96)}), ("realm", {44240: None}), ("realm", {44236: None}),
        ("realm", {44237: cbor.dumps({1: 2, -1: 2, -2: bytes(48), -3: bytes(48)})}),
        ("realm", {44237: cbor.dumps({1: 2, -1: 3, -2: bytes(66), -3: bytes(66)})}),
    ],
)  # fmt: skip
def test_syntax_of_the_claims(where, change):
    for profile in ("legacy", "2023"):
        realm = FakeRealm(profile=profile, **{where: change})
        with pytest.raises(Malformed):
            cca.verify(realm.collect(ASKED), realm.endorsements, ASKED, realm.now)


def test_unknown_claims_are_passed_over():
    realm = FakeRealm(platform={99999: "new"}, realm={99999: b"new", 44243: "private"})
    assert cca.verify(realm.collect(ASKED), realm.endorsements, ASKED, realm.now)


@pytest.mark.parametrize(
    "token",
    [
        b"", b"\xa0", cbor.dumps({44234: b"", 44241: b""}), cbor.dumps(cbor.Tagged(400, {44234: b"", 44241: b""})),
        cbor.dumps(cbor.Tagged(399, [])), cbor.dumps(cbor.Tagged(399, {44234: b""})),
        cbor.dumps(cbor.Tagged(399, {44234: b"", 44241: b"", 1: b""})),
        cbor.dumps(cbor.Tagged(399, {44234: [263, b""], 44241: [263, b""]})),
        cbor.dumps(cbor.Tagged(907, {44234: [60, b""], 44241: [263, b""]})),
        cbor.dumps(cbor.Tagged(907, {44234: b"", 44241: b""})), FakeRealm().token() + b"\0",
    ],
)  # fmt: skip
def test_malformed_tokens(token):
    with pytest.raises(Malformed):
        wire.parse(token)


@pytest.mark.parametrize(
    "primary", [{}, {"token": 1}, {"token": [256]}, {"token": [True]}, {"token": ["a"]}, {"token": "!"}]
)
def test_malformed_evidence(primary):
    with pytest.raises(Malformed):
        cca.verify(Evidence(tee="cca", primary=primary), Endorsements(), Request(), pki.NOW)


def test_both_forms_of_evidence():
    realm = FakeRealm()
    token = realm.token(ASKED.report_data, ASKED.initdata_digest)
    text = Evidence(tee="cca", primary={"token": b64(token)})
    assert cca.verify(text, realm.endorsements, ASKED, realm.now)


def test_files_are_told_by_what_they_hold():
    realm = FakeRealm()
    token = realm.token()
    pem = realm.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    wrapped = json.dumps({"tee": "cca", "primary": {"token": list(token)}}).encode()
    for data in (
        token,
        token.hex().encode(),
        base64.b64encode(token),
        json.dumps({"token": list(token)}).encode(),
        wrapped,
    ):
        found = files.gather(sort([File("a", data), File("b", pem), File("c", b"else")]))
        assert judged(found, sort([File("b", pem)]))
        assert found.report_data == bytes(64)
        with pytest.raises(Unusable, match="platform-key"):
            judged(found, sort([]))
    two = files.gather(sort([File("a", token), File("b", realm.token(b"n" * 64)), File("c", token)]))
    assert [name for name, _ in two.also] == ["b"]
    assert files.gather(sort([File("b", pem)])) is None


def test_collect_refuses_what_is_not_there(tmp_path):
    with pytest.raises(Unusable):
        collecting.collect(Request(), reports=tmp_path / "none")
    with pytest.raises(Unusable, match="64"):
        collecting.collect(Request(report_data=bytes(65)), reports=tmp_path)
    assert not collecting.present(reports=tmp_path / "none")


def test_collect_through_a_stand_in_of_the_kernel(tmp_path, monkeypatch):
    realm = FakeRealm()
    make, write = type(tmp_path).mkdir, type(tmp_path).write_bytes

    def mkdir(self, *args, **kwargs):
        make(self, *args, **kwargs)
        for name, content in (("provider", b"arm_cca_guest\n"), ("generation", b"0\n"), ("outblob", b"")):
            write(self / name, content)

    def write_bytes(self, data):
        if self.name == "inblob":
            assert len(data) == 64
            write(self.parent / "generation", b"1\n")
            write(self.parent / "outblob", realm.token(data))
        return write(self, data)

    monkeypatch.setattr(type(tmp_path), "mkdir", mkdir)
    monkeypatch.setattr(type(tmp_path), "write_bytes", write_bytes)
    assert collecting.PROVIDER == "arm_cca_guest"
    request = Request(report_data=b"q" * 32)
    assert cca.verify(collecting.collect(request, reports=tmp_path), realm.endorsements, request, realm.now).fresh


def test_the_rest_of_the_contract():
    assert room("cca").request(b"n", b"").report_data == b"n"
    for verb in (cca.machine, cca.measure):
        with pytest.raises(Unusable):
            verb(Launch())
    assert cca.endorse(Evidence(tee="cca", primary={}), bytes) == Endorsements()
    with pytest.raises(Unusable):
        cca.verify(Evidence(tee="snp", primary={}), Endorsements(), Request(), pki.NOW)


REALM = FakeRealm()
TOKEN = REALM.token(ASKED.report_data, ASKED.initdata_digest)


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_fuzz_only_malformed_or_refused(data):
    at = data.draw(st.integers(0, len(TOKEN) - 1))
    size = data.draw(st.integers(0, 4))
    changed = TOKEN[:at] + data.draw(st.binary(max_size=4)) + TOKEN[at + size :]
    if changed == TOKEN:
        return
    with pytest.raises((Malformed, Refused, Unusable)):
        cca.verify(evidence(changed), REALM.endorsements, ASKED, REALM.now)


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=400))
def test_fuzz_anything(data):
    for parse in (wire.parse, keys.trust_anchors, keys.public_key):
        with pytest.raises(Malformed):
            parse(b"\xd9\x01\x8f" + data if parse is wire.parse else data)
