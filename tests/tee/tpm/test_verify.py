"""Every rule of the TPM room, on evidence of a fake vendor with real signatures."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from casemate.errors import Malformed, Refused, Unusable
from casemate.policy import platform
from casemate.schema.claims import Claims
from casemate.schema.endorsements import PRODUCTION, Anchor, Endorsements
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request
from casemate.tee import room
from casemate.tee.room import Room
from casemate.tee.tpm import verify
from casemate.testing import eventlog as writer
from casemate.testing.tpm import BROKEN, FakeTpm, FakeVendor
from casemate.wire.encoding import b64, unb64

VENDOR = FakeVendor()
DOCUMENT = b'version = "0.1.0"\n'
REQUEST = Request(report_data=b"r" * 48, initdata_digest=hashlib.sha256(DOCUMENT).digest())
RULES = {
    "signature": {"tpm.quote.signature"},
    "nonce": {"tpm.quote.nonce"},
    "magic": {"tpm.quote.format"},
    "type": {"tpm.quote.format"},
    "unsafe-clock": {"tpm.quote.clock"},
    "truncated": {"tpm.quote.signature", "tpm.quote.format"},
    "pcr-value": {"tpm.quote.pcrs", "tpm.log.replay"},
    "pcr-count": {"tpm.quote.count"},
    "selection": {"tpm.quote.selection", "tpm.quote.count"},
    "other-ak": {"tpm.quote.signature", "tpm.ak.key"},
    "other-root": {"tpm.ak.chain"},
    "no-chain": {"tpm.ak.chain", "tpm.ak.key"},
    "expired": {"tpm.ak.validity"},
    "not-yet-valid": {"tpm.ak.validity"},
    "leaf-is-ca": {"tpm.ak.usage"},
    "no-log": {"tpm.log.present"},
    "log-without-kernel": {"tpm.log.replay"},
    "log-cut": {"tpm.log.format"},
}


def judge(tpm: FakeTpm, request: Request = REQUEST, *, now: datetime | None = None) -> Claims:
    return verify(tpm.collect(request), tpm.endorsements, request, now or datetime.now(UTC))


def fake(**parts: object) -> FakeTpm:
    return FakeTpm(**{"initdata": DOCUMENT, "vendor": VENDOR, **parts})


def failed(refused: pytest.ExceptionInfo[Refused]) -> set[str]:
    assert all(f.expected and f.found and f.hint for f in refused.value.findings if not f.ok)
    return {f.rule for f in refused.value.findings if not f.ok}


def test_good_evidence_yields_claims() -> None:
    tpm = fake()
    claims = judge(tpm)
    assert (claims.tee, claims.platform_class, claims.memory_encrypted, claims.fresh) == (
        "tpm",
        "development",
        False,
        True,
    )
    assert claims.measurement["pcr4"] == tpm.measurement.values["pcr4"] == claims.values["pcr04"]
    assert claims.init_data == hashlib.sha256(bytes(32) + REQUEST.initdata_digest).hexdigest()
    assert claims.report_data == "72" * 32
    assert claims.vouched_by == VENDOR.name
    assert claims.valid_until < datetime.now(UTC) + timedelta(days=91)
    assert all(f.ok for f in claims.checks)
    assert {f.rule for f in claims.checks} >= {"tpm.quote.signature", "tpm.ak.chain", "tpm.log.replay", "tpm.initdata"}


def test_every_fault_has_a_rule_here() -> None:
    assert set(RULES) == set(BROKEN)


@pytest.mark.parametrize("fault", sorted(BROKEN))
def test_each_fault_is_refused_by_its_rules(fault: str) -> None:
    with pytest.raises(Refused) as refused:
        judge(fake(broken=fault))
    assert failed(refused) == RULES[fault]


def test_all_failed_rules_are_told_at_once() -> None:
    evidence = fake(broken="log-cut").collect(REQUEST)
    primary = {**evidence.primary, "ak_chain": []}
    other = Request(report_data=b"s" * 48, initdata_digest=hashlib.sha256(b"other").digest())
    with pytest.raises(Refused) as refused:
        verify(Evidence(tee="tpm", primary=primary), Endorsements(anchors=(VENDOR.anchor,)), other, datetime.now(UTC))
    assert failed(refused) == {"tpm.ak.chain", "tpm.ak.key", "tpm.quote.nonce", "tpm.log.format", "tpm.initdata"}


@pytest.mark.parametrize("measured", [None, b"another document"])
def test_initdata_must_be_the_expected_document(measured: bytes | None) -> None:
    evidence = fake(initdata=measured).collect(REQUEST)
    bare = Evidence(tee="tpm", primary=evidence.primary)
    with pytest.raises(Refused) as refused:
        verify(bare, Endorsements(anchors=(VENDOR.anchor,)), REQUEST, datetime.now(UTC))
    assert failed(refused) == {"tpm.initdata"}


def test_a_document_beside_the_evidence_must_be_the_measured_one() -> None:
    evidence = fake().collect(REQUEST)
    swapped = Evidence(tee="tpm", primary=evidence.primary, initdata=b"swapped")
    with pytest.raises(Refused) as refused:
        verify(swapped, fake().endorsements, REQUEST, datetime.now(UTC))
    assert failed(refused) == {"tpm.initdata.document"}
    with pytest.raises(Refused) as refused:
        verify(swapped, fake().endorsements, Request(report_data=b"r" * 48), datetime.now(UTC))
    assert failed(refused) == {"tpm.initdata"}


def test_pcr_8_is_exactly_one_extend() -> None:
    twice = fake(unlogged=[(8, bytes(32))])
    with pytest.raises(Refused) as refused:
        judge(twice)
    assert failed(refused) == {"tpm.initdata"}
    logged = fake(extra=[writer.over_data(8, 13, b"boot loader command")])
    with pytest.raises(Refused) as refused:
        judge(logged)
    assert failed(refused) == {"tpm.initdata"}


def test_an_unexpected_document_is_refused() -> None:
    request = Request(report_data=b"r" * 48)
    evidence = fake().collect(request)
    with pytest.raises(Refused) as refused:
        verify(Evidence(tee="tpm", primary=evidence.primary), fake().endorsements, request, datetime.now(UTC))
    assert failed(refused) == {"tpm.initdata"}
    assert judge(fake(initdata=None), request).init_data == "00" * 32


def test_without_report_data_the_claims_are_not_fresh() -> None:
    request = Request(initdata_digest=REQUEST.initdata_digest)
    assert judge(fake(), request).fresh is False


def test_short_report_data_is_compared_whole_and_none_at_all_asks_for_nothing() -> None:
    tpm = fake()
    evidence, endorsements = tpm.collect(REQUEST), Endorsements(anchors=(VENDOR.anchor,))
    for shown in (b"short", b"r" * 31, b"r" * 33 + b"x"):
        asked = Request(report_data=shown, initdata_digest=REQUEST.initdata_digest)
        if shown[:32] == b"r" * 32:
            assert verify(evidence, endorsements, asked, datetime.now(UTC)).fresh
            continue
        with pytest.raises(Refused) as refused:
            verify(evidence, endorsements, asked, datetime.now(UTC))
        assert failed(refused) == {"tpm.quote.nonce"}
    with pytest.raises(Unusable, match="asks for nothing"):
        judge(tpm, Request(report_data=b"", initdata_digest=REQUEST.initdata_digest))


@pytest.mark.parametrize("pcr", [0, 4, 5, 9, 11, 15, 16, 17, 22, 23])
def test_unlogged_extends_are_refused(pcr: int) -> None:
    with pytest.raises(Refused) as refused:
        judge(fake(unlogged=[(pcr, bytes(32))]))
    assert failed(refused) == {"tpm.log.replay"}


def test_pcr_10_is_not_judged() -> None:
    assert judge(fake(unlogged=[(10, bytes(32))])).tee == "tpm"


def test_a_log_of_another_device_is_refused() -> None:
    with pytest.raises(Refused) as refused:
        judge(fake(extra=[writer.over_data(25, 13, b"x")]))
    assert failed(refused) == {"tpm.log.registers"}


@pytest.mark.parametrize("part", ["firmware", "kernel", "initrd"])
def test_another_boot_shows_in_the_measurement(part: str) -> None:
    assert judge(fake(**{part: b"other"})).measurement != judge(fake()).measurement


def test_platform_class_is_the_anchors() -> None:
    claims = judge(fake(vendor=FakeVendor(platform_class=PRODUCTION)))
    assert (claims.platform_class, claims.memory_encrypted) == (PRODUCTION, False)


def test_the_anchor_that_reaches_the_leaf_vouches() -> None:
    endorsements = Endorsements(anchors=(FakeVendor(name="Another").anchor, VENDOR.anchor))
    claims = verify(fake().collect(REQUEST), endorsements, REQUEST, datetime.now(UTC))
    assert claims.vouched_by == VENDOR.name


def test_without_anchors_nothing_is_trusted() -> None:
    with pytest.raises(Refused) as refused:
        verify(fake().collect(REQUEST), Endorsements(), REQUEST, datetime.now(UTC))
    assert failed(refused) == {"tpm.ak.chain"}


@pytest.mark.parametrize(
    ("vendor", "rules"),
    [
        (FakeVendor(days=1, start=datetime.now(UTC) - timedelta(days=9)), {"tpm.ak.validity"}),
        (FakeVendor(is_ca=False), {"tpm.ak.usage"}),
    ],
)
def test_roots_are_judged_too(vendor: FakeVendor, rules: set[str]) -> None:
    with pytest.raises(Refused) as refused:
        judge(fake(vendor=vendor))
    assert failed(refused) == rules


def test_a_later_time_refuses_the_same_evidence() -> None:
    with pytest.raises(Refused) as refused:
        judge(fake(), now=datetime.now(UTC) + timedelta(days=100))
    assert failed(refused) == {"tpm.ak.validity"}


def test_an_unreadable_anchor_is_named() -> None:
    endorsements = Endorsements(anchors=(Anchor(certificate=b"\x30\x00"),))
    with pytest.raises(Refused, match="trusted root 0"):
        verify(fake().collect(REQUEST), endorsements, REQUEST, datetime.now(UTC))


def test_evidence_of_another_tee_is_unusable() -> None:
    with pytest.raises(Unusable):
        verify(Evidence(tee="snp", primary={}), Endorsements(), REQUEST, datetime.now(UTC))


def test_the_package_is_a_room() -> None:
    tpm: Room = room("tpm")
    for verb in ("machine", "measure", "request", "collect", "endorse", "verify"):
        assert callable(getattr(tpm, verb))
    assert tpm.endorse(fake().collect(REQUEST), lambda url: b"") == Endorsements()
    assert tpm.request(b"n" * 32, b"").report_data == b"n" * 32


@pytest.mark.parametrize(
    "change",
    [
        lambda p: {},
        lambda p: {**p, "tpm_quote": 1},
        lambda p: {**p, "tpm_quote": {**p["tpm_quote"], "pcrs": ["00"] * 24}},
        lambda p: {**p, "tpm_quote": {**p["tpm_quote"], "pcrs": ["00" * 32] * 25}},
        lambda p: {**p, "tpm_quote": {**p["tpm_quote"], "message": "!"}},
        lambda p: {**p, "tpm_quote": {**p["tpm_quote"], "message": "A" * 9000}},
        lambda p: {**p, "ak_chain": p["ak_chain"] * 3},
        lambda p: {**p, "ak_chain": ["A" * 20000]},
        lambda p: {**p, "event_log": "A" * (2 << 20)},
        lambda p: {**p, "ak_public": None},
    ],
)
def test_malformed_json(change: object) -> None:
    primary = change(fake().collect(REQUEST).primary)
    with pytest.raises(Malformed):
        verify(Evidence(tee="tpm", primary=primary), fake().endorsements, REQUEST, datetime.now(UTC))


GOOD = fake().collect(REQUEST)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8), lambda c: st.lists(c, max_size=3), max_leaves=4
)


@settings(max_examples=60)
@given(st.data())
def test_any_change_of_a_member_is_malformed_or_refused(data: st.DataObject) -> None:
    member = data.draw(st.sampled_from(sorted(GOOD.primary)))
    value = data.draw(json_values)
    _refused({**GOOD.primary, member: value})


@settings(max_examples=80)
@given(st.sampled_from(["message", "signature"]), st.integers(0, 500), st.integers(1, 255))
def test_any_changed_byte_of_the_quote_is_refused(part: str, position: int, change: int) -> None:
    _refused(
        {
            **GOOD.primary,
            "tpm_quote": {**GOOD.primary["tpm_quote"], part: _flip(GOOD.primary["tpm_quote"][part], position, change)},
        }
    )


@settings(max_examples=80)
@given(st.sampled_from(["ak_public", "event_log"]), st.integers(0, 3000), st.integers(1, 255))
def test_any_changed_byte_of_key_or_log_is_never_an_accident(part: str, position: int, change: int) -> None:
    primary = {**GOOD.primary, part: _flip(GOOD.primary[part], position, change)}
    try:
        claims = verify(Evidence(tee="tpm", primary=primary), fake().endorsements, REQUEST, datetime.now(UTC))
    except (Malformed, Refused):
        return
    assert part == "event_log"  # bytes of event data that no digest covers may change, and say nothing
    assert claims.measurement == judge(fake()).measurement


@settings(max_examples=60)
@given(st.integers(0, 600), st.integers(1, 255))
def test_any_changed_byte_of_the_signed_part_of_the_certificate_is_refused(position: int, change: int) -> None:
    leaf = GOOD.primary["ak_chain"][0]
    signed = 4 + len(x509.load_der_x509_certificate(unb64(leaf)).tbs_certificate_bytes)  # behind it X.509 is malleable
    _refused({**GOOD.primary, "ak_chain": [_flip(leaf, position % signed, change), *GOOD.primary["ak_chain"][1:]]})


def _flip(text: str, position: int, change: int) -> str:
    data = bytearray(unb64(text))
    data[position % len(data)] ^= change
    return b64(bytes(data))


def _refused(primary: dict[str, object]) -> None:
    with pytest.raises((Malformed, Refused)):
        verify(Evidence(tee="tpm", primary=primary), fake().endorsements, REQUEST, datetime.now(UTC))


EXIT = [
    (5, hashlib.sha256(text).digest())
    for text in (b"Exit Boot Services Invocation", b"Exit Boot Services Returned with Success")
]


def test_an_unlogged_end_of_the_boot_services_is_a_caution_with_a_name() -> None:
    claims = judge(fake(unlogged=EXIT), REQUEST)
    assert [f.rule for f in claims.cautions] == ["tpm.log.unlogged_exit"]
    assert "PCR 5" in claims.cautions[0].expected
    assert "tpm.log.replay" in {f.rule for f in claims.checks if f.ok}
    assert [f.rule for f in platform.judge(claims) if not f.ok and f.rule.startswith("tpm.")] == [
        "tpm.log.unlogged_exit"
    ]


@pytest.mark.parametrize(
    "unlogged", [EXIT[:1], EXIT[::-1], [*EXIT, (5, bytes(32))], [(4, EXIT[0][1]), (4, EXIT[1][1])]]
)
def test_other_unlogged_extends_have_no_excuse(unlogged: list[tuple[int, bytes]]) -> None:
    with pytest.raises(Refused) as refused:
        judge(fake(unlogged=unlogged), REQUEST)
    assert failed(refused) == {"tpm.log.replay"}
