"""The wall that sorts a folder by content: every form, every bound, and nothing that makes it stumble."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from casemate.errors import CasemateError, Malformed, Unusable
from casemate.schema.request import Request
from casemate.tee import ROOMS, files, gatherer
from casemate.tee.files import Case, File, sort
from casemate.testing.snp import FakeChip

CHIP = FakeChip()
CERTIFICATES = tuple(der for kind, der in CHIP.chain if kind != "CRL")


def pem(kind: str, der: bytes) -> bytes:
    return f"-----BEGIN {kind}-----\n".encode() + base64.encodebytes(der) + f"-----END {kind}-----\n".encode()


def case(*data: bytes) -> Case:
    return sort([File(f"{index:02}", item) for index, item in enumerate(data)])


@pytest.mark.parametrize(
    "form",
    [
        b"".join,
        lambda ders: b"".join(pem("CERTIFICATE", der) for der in ders),
        lambda ders: b"a word before\n" + b"".join(pem("CERTIFICATE", der) for der in ders) + b"and one behind\n",
        lambda ders: "\ufeffgrüße\r\n".encode() + b"".join(pem("CERTIFICATE", d) for d in ders).replace(b"\n", b"\r\n"),
        lambda ders: b"".join(ders).hex().encode(),
        lambda ders: b"0x" + b"".join(ders).hex().upper().encode() + b"\n",
        lambda ders: base64.encodebytes(b"".join(ders)),
        lambda ders: base64.urlsafe_b64encode(b"".join(ders)).rstrip(b"="),
        lambda ders: base64.b64encode(b"".join(pem("CERTIFICATE", der) for der in ders)),
    ],
)
def test_certificates_are_found_in_every_form(form):
    found = case(form(CERTIFICATES))
    assert (found.certificates, found.blobs, found.documents) == (CERTIFICATES, (), ())


def test_keys_and_doubles():
    spki = (
        ec.generate_private_key(ec.SECP256R1())
        .public_key()
        .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    )
    assert case(spki, pem("PUBLIC KEY", spki)).keys == (spki,)
    assert case(CERTIFICATES[0], pem("CERTIFICATE", CERTIFICATES[0])).certificates == CERTIFICATES[:1]


def test_a_private_key_is_no_paper_and_a_broken_certificate_is_a_blob():
    broken = CERTIFICATES[0][:-1]
    found = case(pem("PRIVATE KEY", b"\x30\x03\x02\x01\x00"), broken, b"")
    assert found.certificates == ()
    assert [blob.name for blob in found.blobs] == ["00", "01", "02"]


def test_json_is_bounded_in_size_depth_and_nodes(monkeypatch):
    assert case(b' {"a": [1, {"b": "c"}]}\n').documents == (("00", {"a": [1, {"b": "c"}]}),)
    deep = b"[" * (files.MAX_DEPTH + 1) + b"]" * (files.MAX_DEPTH + 1)
    assert case(deep).documents == ()
    assert case(b"[" * 100_000).documents == ()
    assert case(b'{"a": ').documents == ()
    monkeypatch.setattr(files, "MAX_NODES", 10)
    assert case(json.dumps(list(range(20))).encode()).documents == ()
    monkeypatch.setattr(files, "MAX_JSON", 10)
    assert case(b'{"a": "0123456789"}').documents == ()


def test_too_much_is_malformed(monkeypatch):
    with pytest.raises(Malformed, match="at most 64"):
        sort([File(str(i), b"") for i in range(65)])
    monkeypatch.setattr(files, "MAX_SIZE", 10)
    with pytest.raises(Malformed, match="at most 10"):
        case(bytes(11))
    monkeypatch.undo()
    monkeypatch.setattr(files, "MAX_PAPERS", 1)
    with pytest.raises(Malformed, match="more than 1"):
        case(*CERTIFICATES)


def test_short_text_and_prose_are_left_as_they_are():
    assert case(b"abcd").blobs == (File("00", b"abcd"),)
    assert case(b"this is a sentence with a full stop, and some more words.").blobs[0].data.startswith(b"this")
    assert case(b"ab" * 16).blobs == (File("00", b"\xab" * 16),)


def test_envelopes_of_primary_evidence():
    primary = {"svn": "1", "report_data": "AA=="}
    document = base64.b64encode(b"doc").decode()
    forms = [
        primary,
        {"tee": "sample", "primary": primary, "additional": "", "initdata": document},
        {"evidence": {"tee": "sample", "primary": primary}, "initdata": document},
        {"primary_evidence": primary, "additional_evidence": "{}"},
        {"primary_evidence": json.dumps(primary)},
    ]
    for form in forms:
        found = gatherer("sample")(case(json.dumps(form).encode()))
        assert found.evidence.primary == primary
        assert found.evidence.initdata in (None, b"doc")
    other = {"tee": "snp", "primary": primary}
    assert gatherer("sample")(case(json.dumps(other).encode())) is None
    assert gatherer("sample")(case(json.dumps({**primary, "more": 1}).encode())) is None


def test_quotes_in_their_wrappings():
    from casemate.testing.dcap import FakePlatform
    from casemate.testing.tdx import FakeTd

    platform = FakePlatform("sgx")
    enclave = platform.quote(platform.enclave())
    td = base64.b64decode(FakeTd().collect(Request(report_data=b"r")).primary["quote"])
    for tee, quote in (("sgx", enclave), ("tdx", td)):
        header = b"\1\0\0\0\2\0\0\0" + len(quote).to_bytes(8, "little")
        papers = [{"quote": quote.hex()}, {"q": {"r": quote.hex()}}]
        forms = [quote, quote + bytes(70), header + quote, b"\x0a\x99\x12" + quote, quote.hex().encode()]
        forms += [json.dumps(paper).encode() for paper in papers]
        found = gatherer(tee)(case(*forms))
        assert (len(found.used), found.also, bool(found.missing)) == (len(forms), (), True)
        assert gatherer({"sgx": "tdx", "tdx": "sgx"}[tee])(case(*forms)) is None


def test_every_room_has_a_gatherer_and_finds_nothing_in_nothing():
    for tee in ROOMS:
        assert gatherer(tee)(case(b"", b"{}", b"[]", b"x" * 1184, bytes(2000))) is None
    with pytest.raises(Unusable, match="not known"):
        gatherer("vax")


def test_reports_in_their_wrappings():
    report = CHIP.report(Request(report_data=b"r" * 48))
    wrapped = [
        report,
        report + bytes(64),
        bytes(4) + len(report).to_bytes(4, "little") + bytes(24) + report,
        b"\x00\x03\x81\x12" + report + b"more",
        base64.b64encode(report),
        report.hex().encode(),
        json.dumps({"report": base64.b64encode(report).decode()}).encode(),
        json.dumps({"tee": "snp", "primary": {"attestation_report": base64.b64encode(report).decode()}}).encode(),
    ]
    for data in wrapped:
        found = gatherer("snp")(case(data, *CERTIFICATES))
        assert found is not None, data[:40]
        assert found.report_data == b"r" * 48 + bytes(16)
        assert found.also == ()
    two = CHIP.report(Request(report_data=b"s" * 48))
    assert [name for name, _ in gatherer("snp")(case(report, two, *wrapped[1:])).also] == ["01"]


@pytest.mark.parametrize("tee", sorted(ROOMS))
@settings(max_examples=60, deadline=None)
@given(
    data=st.lists(st.binary(max_size=2400), max_size=3),
    documents=st.lists(
        st.dictionaries(
            st.sampled_from(
                [
                    "quote",
                    "tee",
                    "primary",
                    "evidence",
                    "attestation_report",
                    "document",
                    "svn",
                    "imr",
                    "event_log",
                    "tcbInfo",
                    "signature",
                    "tcb_info",
                    "tpm_quote",
                    "collateral",
                    "report",
                    "hcl_report",
                    "token",
                    "cc_eventlog",
                    "primary_evidence",
                    "initdata",
                    "0",
                ]
            ),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.text(max_size=40) | st.floats(allow_nan=False),
                lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
                max_leaves=6,
            ),
            max_size=4,
        ),
        max_size=2,
    ),
)
def test_no_room_stumbles_over_what_is_no_evidence(tee, data, documents):
    try:
        gatherer(tee)(case(*data, *(json.dumps(document).encode() for document in documents)))
    except CasemateError:
        pass
