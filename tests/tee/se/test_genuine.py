"""The vendor's published vectors and its test papers (s390-tools), piece by piece. No genuine evidence is published."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from casemate.crypto import pem
from casemate.errors import Malformed
from casemate.schema.endorsements import PRODUCTION
from casemate.tee.roots import Root
from casemate.tee.se import arcb, exchange, hostkey
from casemate.tee.se import report as wire
from casemate.testing import published

PKI, VECTORS = "host-key-document-pki", "vectors-measurement"
AS_OF = datetime(2024, 6, 1, tzinfo=UTC)


@pytest.fixture
def read():
    folder = published.folder("ibm-se")
    if folder is None:
        pytest.skip("no published evidence here: set CASEMATE_EVIDENCE")
    return lambda *parts: folder.joinpath(*parts).read_bytes()


@pytest.fixture
def papers(read):
    def der(name):
        return pem.certificates(read(PKI, name), name)[0]

    return hostkey.Papers(
        (der("ibm.crt"), der("inter_ca.crt")),
        (Root(der("root_ca.crt"), PRODUCTION, "test root"),),
        tuple(lists(read, "ibm.crl", "inter_ca.crl", "root_ca.crl")),
        AS_OF,
    )


def lists(read, *names):
    from casemate.tee.files import File, sort

    return sort([File(name, read(PKI, name)) for name in names]).crls


def judge(read, papers, name):
    document = pem.certificates(read(PKI, name), name)[0]
    judged = hostkey.judge(document, papers, rule="t")
    return judged, {f.rule for f in judged.findings if not f.ok}


def test_the_good_document_holds(read, papers):
    judged, failed = judge(read, papers, "host.crt")
    assert failed == set()
    assert judged.root is not None
    assert judged.not_after.year == 2388


@pytest.mark.parametrize(
    ("name", "rules"),
    [
        ("host_rev.crt", {"t.revoked"}),
        ("host_crt_expired.crt", {"t.validity"}),
        ("fake_host.crt", {"t.signature"}),
    ],
)
def test_each_bad_document_is_refused_by_its_rule(read, papers, name, rules):
    assert judge(read, papers, name)[1] == rules


def test_the_fake_signing_certificate_reaches_no_root(read, papers):
    fake = pem.certificates(read(PKI, "fake_ibm.crt"), "fake")[0]
    with_fake = replace(papers, certificates=(fake, papers.certificates[1]))
    assert judge(read, with_fake, "fake_host.crt")[1] == {"t.chain.chain", "t.revoked"}
    assert judge(read, with_fake, "host.crt")[1] == {"t.signature"}
    both = replace(papers, certificates=(fake, *papers.certificates))
    assert judge(read, both, "host.crt")[1] == set()  # which of two signed is found out, not guessed
    assert "t.chain.chain" in judge(read, both, "fake_host.crt")[1]


@pytest.mark.parametrize("name", ["ibm_outdated_early.crl", "ibm_outdated_late.crl", "ibm_wrong_issuer.crl"])
def test_each_bad_list_is_refused(read, papers, name):
    others = lists(read, "inter_ca.crl", "root_ca.crl")
    judged, failed = judge(read, replace(papers, lists=(*others, *lists(read, name))), "host.crt")
    assert failed == {"t.revoked"}
    found = next(f for f in judged.findings if not f.ok)
    wanted = {"ibm_outdated_early.crl": "3023", "ibm_outdated_late.crl": "2023", "ibm_wrong_issuer.crl": "Intermediate"}
    assert wanted[name] in found.found
    # A good list beside it changes nothing: a bad list that is given is told.
    assert judge(read, replace(papers, lists=(*papers.lists, *lists(read, name))), "host.crt")[1] == {"t.revoked"}


@pytest.mark.parametrize("left", ["ibm.crl", "inter_ca.crl", "root_ca.crl"])
def test_a_list_of_every_issuer_is_needed(read, papers, left):
    kept = lists(read, *({"ibm.crl", "inter_ca.crl", "root_ca.crl"} - {left}))
    judged, failed = judge(read, replace(papers, lists=kept), "host.crt")
    assert failed == ({"t.revoked"} if left == "ibm.crl" else {"t.chain.lists"})
    assert not judged.lists


def test_outside_the_window(read, papers):
    early = replace(papers, now=datetime(2024, 3, 1, tzinfo=UTC))
    assert {"t.validity", "t.chain.validity"} <= judge(read, early, "host.crt")[1]
    late = replace(papers, now=datetime(2389, 1, 1, tzinfo=UTC))
    assert {"t.validity", "t.chain.validity", "t.chain.revoked", "t.revoked"} <= judge(read, late, "host.crt")[1]


def test_other_roots_and_no_intermediate(read, papers):
    assert "t.chain.chain" in judge(read, replace(papers, roots=()), "host.crt")[1]
    alone = replace(papers, certificates=papers.certificates[:1])
    assert "t.chain.chain" in judge(read, alone, "host.crt")[1]
    assert judge(read, replace(papers, certificates=papers.certificates[1:]), "host.crt")[1] == {"t.signer"}


def changed_papers(read, papers, stride):
    """What came of changing bytes of the document, of the certificates above it, and of each list."""
    document = pem.certificates(read(PKI, "host.crt"), "host")[0]
    counts = Counter()

    def put(items, at, data):
        return (*items[:at], data, *items[at + 1 :])

    cases = [(document, lambda c: hostkey.judge(c, papers, rule="t"))]
    for i, der in enumerate(papers.certificates):
        cases.append((der, lambda c, i=i: hostkey.judge(
            document, replace(papers, certificates=put(papers.certificates, i, c)), rule="t")))  # fmt: skip
    for i, der in enumerate(papers.lists):
        cases.append((der, lambda c, i=i: hostkey.judge(
            document, replace(papers, lists=put(papers.lists, i, c)), rule="t")))  # fmt: skip
    for data, judge_changed in cases:
        assert judge_changed(data).failed == 0
        for offset in range(0, len(data), stride):
            try:
                failed = judge_changed(data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :]).failed
                counts["refused" if failed else "accepted"] += 1
            except Malformed:
                counts["malformed"] += 1
    print(f"ibm-se/{PKI}: {dict(counts)}")
    assert not counts["accepted"]


@pytest.mark.filterwarnings("ignore:Attribute's length")  # a changed country is read, and refused all the same
def test_changed_bytes_of_every_paper_are_refused_sampled(read, papers):
    changed_papers(read, papers, 31)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("ignore:Attribute's length")
def test_changed_bytes_of_every_paper_are_refused_in_full(read, papers):
    changed_papers(read, papers, 1)


def test_the_measurement_vectors(read):
    vectors = json.loads(read(VECTORS, "measurement_vectors.json"))
    assert len(vectors) == 4
    for v in vectors:
        part = {name: bytes.fromhex(v[name]) for name in v if name != "name"}
        tags = wire.Tags(part["pld"], part["ald"], part["tld"], part["tag"])
        data = wire.measured(tags, part["cuid"], part["user_data"], part["nonce"], part["additional_data"])
        digest = hmac.new(part["meas_key"], data, hashlib.sha512).hexdigest()
        assert digest == v["expected_hmac_sha512"], v["name"]


def test_the_request_opens_with_its_key_alone(read):
    block = arcb.parse(read(VECTORS, "arcb.bin"))
    vector = json.loads(read(VECTORS, "arcb_vector.json"))
    assert block.iv.hex() == vector["iv"]
    assert block.flags == arcb.DEFAULT
    assert len(block.slots) == 1
    opened = block.open(bytes.fromhex(vector["arpk"]))
    assert [part.hex() for part in opened] == [vector["expected_measurement_key"], vector["expected_nonce"]]
    assert block.open(bytes(32)) is None
    assert block.open(bytes(16)) is None


def test_flipped_bytes_of_the_request_do_not_open(read):
    data = read(VECTORS, "arcb.bin")
    key = bytes.fromhex(json.loads(read(VECTORS, "arcb_vector.json"))["arpk"])
    for offset in range(len(data)):
        changed = data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :]
        try:
            assert arcb.parse(changed).open(key) is None, offset
        except Malformed:
            pass


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("exchange_full_req.bin", (16, 0, 0, 0, 0)),
        ("exchange_full_resp.bin", (16, 64, 32, 256, 16)),
        ("exchange_user_resp.bin", (16, 64, 0, 256, 16)),
        ("exchange_min_resp.bin", (16, 64, 0, 0, 16)),
    ],
)
def test_the_exchange_files(read, name, sizes):
    found = exchange.parse(read(VECTORS, name))
    parts = (found.request, found.measurement, found.additional, found.user, found.cuid)
    assert tuple(map(len, parts)) == sizes
    assert found.is_response == ("resp" in name)
    assert found.expected == (64, 32 if "full" in name else 0)
