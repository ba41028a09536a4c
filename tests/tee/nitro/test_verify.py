import datetime as dt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casemate.errors import Malformed, Refused, Unusable
from casemate.policy import platform
from casemate.schema.endorsements import DEVELOPMENT, Anchor, Endorsements
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request
from casemate.tee import nitro, room
from casemate.tee.nitro import report
from casemate.testing.nitro import BROKEN, FakeEnclave
from casemate.wire import cbor
from casemate.wire.encoding import b64

TEE = "nitro"
NONCE = Request(report_data=b"n" * 32)


def given_document(data: bytes) -> Evidence:
    return Evidence(tee="nitro", primary={"document": b64(data)})


def failed(evidence, endorsements, request, now):
    with pytest.raises(Refused) as caught:
        nitro.verify(evidence, endorsements, request, now)
    return {f.rule for f in caught.value.findings if not f.ok}


def test_genuine_samples_reach_their_verdict(genuine):
    claims = nitro.verify(given_document(genuine.read("doc.cbor")), Endorsements(), Request(), genuine.as_of)
    accepted = all(f.ok for f in platform.judge(claims))
    assert ("accepted" if accepted else "refused") == genuine.verdict
    facts = genuine.facts
    assert {i: claims.values["pcrs"][i] for i in facts["pcrs"]} == facts["pcrs"]
    assert claims.values["module_id"] == facts["module_id"]
    for name in ("public_key", "user_data", "nonce"):
        assert (claims.values[name] or "").startswith((facts[name] or {"hex": ""})["hex"])
    assert claims.platform_class == "production"
    assert claims.memory_encrypted
    assert not claims.fresh
    assert claims.debug == (genuine.verdict == "refused")


def test_genuine_samples_outside_their_window(genuine):
    evidence = given_document(genuine.read("doc.cbor"))
    late = failed(evidence, Endorsements(), Request(), genuine.window[1] + dt.timedelta(seconds=1))
    assert {"nitro.chain.validity", "nitro.time"} <= late
    assert "nitro.chain.validity" in failed(
        evidence, Endorsements(), Request(), genuine.window[0] - dt.timedelta(days=1)
    )
    assert failed(evidence, Endorsements(), Request(), genuine.as_of + dt.timedelta(minutes=6)) - {"nitro.debug"} == {
        "nitro.time"
    }


def test_a_matching_nonce_stands_in_for_the_time(genuine):
    if not genuine.facts["nonce"]:
        return  # this document has no nonce
    evidence = given_document(genuine.read("doc.cbor"))
    claims = nitro.verify(evidence, Endorsements(), Request(), genuine.as_of)
    request = Request(report_data=bytes.fromhex(claims.values["nonce"]))
    assert nitro.verify(evidence, Endorsements(), request, genuine.as_of + dt.timedelta(minutes=30)).fresh


def test_published_tampered_documents(genuine):
    for path in sorted(genuine.folder.glob("tampered_*.bin")):
        rules = failed(given_document(path.read_bytes()), Endorsements(), Request(), genuine.as_of)
        assert "nitro.signature" in rules, path.name


def test_an_unrelated_anchor_is_no_root(genuine):
    path = genuine.folder / "unknown_ca.crt"
    if not path.is_file():
        return  # no unrelated root here
    enclave = FakeEnclave()
    anchors = Endorsements(certificates=(enclave.root.certificate,))
    rules = failed(enclave.collect(Request()), anchors, Request(), enclave.now)
    assert rules == {"nitro.chain.chain"}


def test_flipped_bytes_of_a_genuine_document_are_refused(genuine):
    if genuine.verdict != "accepted":
        return  # accepted ones only
    data = genuine.read("doc.cbor")
    accepted = []
    for offset in range(0, len(data), 37):
        changed = data[:offset] + bytes([data[offset] ^ 0x10]) + data[offset + 1 :]
        try:
            nitro.verify(given_document(changed), Endorsements(), Request(), genuine.as_of)
            accepted.append(offset)
        except (Malformed, Refused):
            pass
    assert accepted == []


def test_a_fake_vendor_is_accepted_where_it_is_anchored():
    enclave = FakeEnclave(user_data=b"user", public_key=b"key")
    claims = nitro.verify(enclave.collect(NONCE), enclave.endorsements, NONCE, enclave.now)
    assert claims.fresh
    assert claims.report_data == NONCE.report_data.hex()
    assert claims.vouched_by == "Fake Nitro root"
    assert claims.valid_until == enclave.now + dt.timedelta(hours=3)
    assert all(f.ok for f in claims.checks)
    assert {f.rule for f in claims.checks} >= {"nitro.signature", "nitro.chain.chain", "nitro.nonce", "nitro.debug"}


def test_an_anchor_for_another_tee_does_not_count():
    enclave = FakeEnclave()
    anchor = Anchor(certificate=enclave.root.certificate, tees=("snp",))
    assert failed(enclave.collect(NONCE), Endorsements(anchors=(anchor,)), NONCE, enclave.now) == {"nitro.chain.chain"}


def test_a_development_anchor_makes_development_claims():
    enclave = FakeEnclave(platform_class=DEVELOPMENT)
    claims = nitro.verify(enclave.collect(NONCE), enclave.endorsements, NONCE, enclave.now)
    assert claims.platform_class == DEVELOPMENT
    assert not claims.memory_encrypted
    assert not all(f.ok for f in platform.judge(claims))


RULES = {
    "signature": {"nitro.signature"},
    "algorithm": {"nitro.signature"},
    "other-key": {"nitro.signature"},
    "other-root": {"nitro.chain.chain"},
    "no-intermediate": {"nitro.chain.chain"},
    "leaf-is-ca": {"nitro.chain.usage"},
    "leaf-as-issuer": {"nitro.chain.usage"},
    "expired": {"nitro.chain.validity"},
    "not-yet-valid": {"nitro.chain.validity"},
    "nonce": {"nitro.nonce"},
    "no-nonce": {"nitro.nonce"},
    "digest": {"nitro.digest"},
    "no-pcr0": {"nitro.pcrs", "nitro.debug"},
}


@pytest.mark.parametrize("fault", sorted(set(BROKEN) - {"debug", "stale", "future"}))
def test_each_fault_is_refused_by_its_rule(fault):
    enclave = FakeEnclave(broken=fault)
    assert failed(enclave.collect(NONCE), enclave.endorsements, NONCE, enclave.now) >= RULES[fault]


@pytest.mark.parametrize("fault", ["stale", "future"])
def test_time_counts_without_a_nonce(fault):
    enclave = FakeEnclave(broken=fault)
    assert failed(enclave.collect(Request()), enclave.endorsements, Request(), enclave.now) == {"nitro.time"}
    assert nitro.verify(enclave.collect(NONCE), enclave.endorsements, NONCE, enclave.now).fresh


def test_debug_is_told_and_refused_by_policy():
    enclave = FakeEnclave(broken="debug")
    claims = nitro.verify(enclave.collect(NONCE), enclave.endorsements, NONCE, enclave.now)
    assert claims.debug
    assert [f.rule for f in platform.judge(claims) if not f.ok] == ["nitro.debug"]
    accepting = platform.PlatformPolicy(cautions=frozenset({"nitro.debug"}))
    assert all(f.ok for f in platform.judge(claims, accepting))


def test_every_failed_rule_is_told():
    enclave = FakeEnclave(broken="expired")
    request = Request(report_data=b"x", initdata_digest=bytes(32))
    rules = failed(enclave.collect(NONCE), enclave.endorsements, request, enclave.now)
    assert rules == {"nitro.chain.validity", "nitro.nonce", "nitro.initdata"}


def test_tagged_and_indefinite_forms_are_read():
    enclave = FakeEnclave()
    document = enclave.document(NONCE.report_data)
    assert nitro.verify(given_document(b"\xd2" + document), enclave.endorsements, NONCE, enclave.now)
    parts = cbor.loads(document)
    indefinite = b"\x9f" + b"".join(cbor.dumps(p) for p in parts) + b"\xff"
    assert nitro.verify(given_document(indefinite), enclave.endorsements, NONCE, enclave.now)


@pytest.mark.parametrize(
    "change",
    [
        {"timestamp": 0}, {"timestamp": True}, {"timestamp": "1"}, {"pcrs": {}}, {"pcrs": {32: bytes(48)}},
        {"pcrs": {0: b"short"}}, {"cabundle": []}, {"cabundle": [b""]}, {"certificate": b""}, {"nonce": bytes(513)},
        {"user_data": bytes(513)}, {"public_key": bytes(1025)}, {"module_id": ""}, {"digest": 1}, {"nonce": "text"},
        {"certificate": bytes(1025)}, {"cabundle": [b"x"] * 9},
    ],
)  # fmt: skip
def test_syntax_of_the_document(change):
    parts = cbor.loads(FakeEnclave().document())
    body = cbor.loads(parts[2]) | change
    with pytest.raises(Malformed):
        nitro.verify(
            given_document(cbor.dumps([*parts[:2], cbor.dumps(body), parts[3]])),
            Endorsements(),
            NONCE,
            FakeEnclave().now,
        )


@pytest.mark.parametrize(
    "primary", [{}, {"document": 1}, {"document": "!"}, {"document": "AA=="}, {"document": "A" * 40000}]
)
def test_malformed_evidence(primary):
    with pytest.raises(Malformed):
        nitro.verify(Evidence(tee="nitro", primary=primary), Endorsements(), Request(), FakeEnclave().now)


def test_evidence_of_another_tee():
    with pytest.raises(Unusable):
        nitro.verify(Evidence(tee="snp", primary={}), Endorsements(), Request(), FakeEnclave().now)


def test_the_register_knows_the_room():
    assert room("nitro").request(b"n", b"").report_data == b"n"


ENCLAVE = FakeEnclave()
DOCUMENT = ENCLAVE.document(NONCE.report_data)


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_fuzz_only_malformed_or_refused(data):
    at = data.draw(st.integers(0, len(DOCUMENT) - 1))
    size = data.draw(st.integers(0, 4))
    changed = DOCUMENT[:at] + data.draw(st.binary(max_size=4)) + DOCUMENT[at + size :]
    if changed.removeprefix(b"\xd2") == DOCUMENT.removeprefix(b"\xd2"):
        return  # COSE_Sign1 may carry its tag or not (RFC 9052 section 2)
    with pytest.raises((Malformed, Refused)):
        nitro.verify(given_document(changed), ENCLAVE.endorsements, NONCE, ENCLAVE.now)


def _at(timestamp: int) -> bytes:
    document = report.parse(FakeEnclave().document(NONCE.report_data))
    body = cbor.loads(document.message.payload, "payload") | {"timestamp": timestamp}
    return cbor.dumps([document.message.protected, {}, cbor.dumps(body), document.message.signature])


@pytest.mark.parametrize("request_", [Request(), NONCE])
@pytest.mark.parametrize("timestamp", [1, 1_000_000_000_000, report.MAX_TIME - 1, report.MAX_TIME,
                                       253_402_300_799_999, 253_402_300_800_000, (1 << 48) - 1, 1 << 48])  # fmt: skip
def test_no_time_leaves_the_calendar(timestamp, request_):
    """The years 9999 and 10889, where `datetime` and its sums end."""
    with pytest.raises((Malformed, Refused)):
        nitro.verify(given_document(_at(timestamp)), FakeEnclave().endorsements, request_, FakeEnclave().now)


@settings(max_examples=100, deadline=None)
@given(st.integers(min_value=-(1 << 64), max_value=(1 << 64) - 1))
def test_any_number_in_the_place_of_the_time(timestamp):
    with pytest.raises((Malformed, Refused)):
        nitro.verify(given_document(_at(timestamp)), FakeEnclave().endorsements, Request(), FakeEnclave().now)
