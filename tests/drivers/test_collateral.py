"""Collateral: services on loopback with fake vendors' material, a store shared by processes, bundles."""

import itertools
import json
import multiprocessing
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from casemate.drivers import collateral, statements, vendors
from casemate.drivers.collateral import Absent, Store
from casemate.errors import Malformed, Refused, Unavailable, Unusable
from casemate.schema.request import Request
from casemate.tee import room
from casemate.testing import pki
from casemate.testing.dcap import FakePlatform
from casemate.testing.snp import FakeChip
from casemate.testing.tdx import FakeTd
from casemate.testing.vendors import AMD, INTEL, Answer, VendorServer, amd, intel

ASKED = Request(report_data=b"r" * 48)
CRL = f"{AMD}/vcek/v1/Milan/crl"


@pytest.fixture(scope="module")
def chip():
    return FakeChip("Milan", version=3)


@pytest.fixture(scope="module")
def platform():
    return FakePlatform("tdx", now=datetime.now(UTC))


@pytest.fixture
def server(chip, platform):
    with VendorServer(amd(chip) | intel(platform)) as running:
        yield running


def fetcher(server, folder, **options):
    """A fetcher into a store in `folder`; options of the settings file, or of the fetcher."""
    settings = {k: options.pop(k) for k in list(options) if k.endswith("_seconds") or k in ("gap", "pinned")}
    folder.mkdir(exist_ok=True)
    return vendors.Fetcher(Store.make(folder / "store"), vendors.load(server.settings(folder, **settings)), **options)


def bare(evidence):
    """SNP evidence without the certificates that the fake vendor adds."""
    return msgspec.structs.replace(evidence, primary={**evidence.primary, "cert_chain": None})


@pytest.mark.parametrize("pinned", [False, True])
def test_what_snp_needs_is_fetched_once_and_then_judged_offline(server, chip, tmp_path, pinned):
    evidence = bare(chip.collect(ASKED))
    snp = room("snp")
    with pytest.raises(Absent, match=f"{AMD}/vcek/v1/Milan/{'77' * 64}"):
        snp.endorse(evidence, Store.make(tmp_path / "store").fetch)
    first = fetcher(server, tmp_path, pinned=pinned)
    snp.endorse(evidence, first.fetch)
    assert len(first.fetched) == 3
    again = fetcher(server, tmp_path, pinned=pinned)
    offline = snp.endorse(evidence, again.fetch)
    assert (again.fetched, len(again.kept), len(server.asked)) == ([], 3, 3)
    given = msgspec.structs.replace(offline, anchors=chip.endorsements.anchors)
    assert snp.verify(evidence, given, ASKED, chip.now).tee == "snp"


def test_what_tdx_needs_comes_with_its_chains_from_headers(server, platform, tmp_path):
    td = FakeTd(platform)
    evidence, tdx = td.collect(ASKED), room("tdx")
    filled = fetcher(server, tmp_path)
    tdx.endorse(evidence, filled.fetch)
    offline = tdx.endorse(evidence, Store(tmp_path / "store").fetch)
    assert offline.collateral == platform.collateral
    given = msgspec.structs.replace(offline, anchors=platform.endorsements.anchors)
    assert tdx.verify(evidence, given, ASKED, platform.now).tcb_status == "UpToDate"
    ends = {e.url: e.expires for e in filled.store.entries()}
    assert ends[f"{INTEL}/tdx/certification/v4/qe/identity"] < platform.now + timedelta(days=21)


def test_a_busy_service_is_waited_for_as_long_as_it_says(server, chip, tmp_path):
    good = server.answers[CRL]
    server.answers[CRL] = Answer(status=429, headers={"Retry-After": "1"}, times=1, then=good)
    said = []
    fetcher(server, tmp_path, note=said.append).fetch(CRL)
    first, second = (when for when, _ in server.asked)
    assert second - first >= 1
    assert "busy (429)" in said[0]


def test_patience_ends_and_the_next_call_knows_it_still(server, tmp_path):
    server.answers[CRL] = Answer(status=503, headers={"Retry-After": "3000"})
    with pytest.raises(Unavailable, match="wants to be left alone for"):
        fetcher(server, tmp_path, patience_seconds=5).fetch(CRL)
    with pytest.raises(Unavailable, match="left alone for"):
        fetcher(server, tmp_path, patience_seconds=5).fetch(CRL)
    assert len(server.asked) == 1


def test_requests_to_a_host_keep_their_distance_also_between_fetchers(server, chip, tmp_path):
    urls = list(amd(chip))
    for url in urls:
        fetcher(server, tmp_path, gap=0.3).fetch(url)
    times = [when for when, _ in server.asked]
    assert all(later - earlier >= 0.29 for earlier, later in itertools.pairwise(times))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Answer(status=302, headers={"Location": "/elsewhere"}), "redirects are not followed"),
        (Answer(status=404), "has nothing"),
        (Answer(status=500, body=b"oops"), "answered 500"),
        (Answer(b"<html>Please log in</html>"), "gave no collateral"),
        (Answer(b"[1]"), "gave no collateral"),
        (Answer(b""), "gave no collateral"),
        (Answer(b"x" * 100, cut=50), "early"),
        (Answer(b"{}" * (3 << 20)), "announces"),
        (Answer(b"{}", delay=1.5), "in time"),
        (Answer(b'{"nextUpdate":"soon"}'), "not a time"),
        (Answer(b"{}", headers={"X-Chain": "%00"}), "gave no collateral"),
    ],
    ids=["redirect", "absent", "error", "page", "array", "empty", "cut", "long", "slow", "time", "chain"],
)
def test_what_is_no_collateral_is_not_kept(server, tmp_path, answer, message):
    server.answers[CRL] = answer
    asking = fetcher(server, tmp_path, timeout_seconds=0.7)
    with pytest.raises(Unavailable, match=message):
        asking.fetch(CRL)
    assert list(asking.store.entries()) == []


def test_a_service_that_fails_leaves_what_is_still_good(server, tmp_path):
    fetcher(server, tmp_path).fetch(CRL)
    server.answers[CRL] = Answer(status=500)
    said = []
    asking = fetcher(server, tmp_path, refresh=True, note=said.append)
    assert asking.fetch(CRL)
    assert (asking.kept, "good until 2049" in said[0]) == ([CRL], True)


def test_another_key_or_another_ca_is_not_trusted(server, tmp_path):
    with VendorServer() as other:
        asking = fetcher(server, tmp_path)
        (tmp_path / "ca.pem").write_bytes(other.ca)
        with pytest.raises(Unavailable, match="TLS"):
            asking.fetch(CRL)
        path = server.settings(tmp_path, pinned=True)
        path.write_text(path.read_text().replace(server.pin, other.pin))
        with pytest.raises(Refused):
            vendors.Fetcher(asking.store, vendors.load(path)).fetch(CRL)


def test_hosts_that_no_room_names_are_not_asked(server, tmp_path):
    for url in (
        "https://internal.example/x",
        f"{AMD}.example/x",
        "http://kdsintf.amd.com/x",
        "ftp://a.example",
        "file:///etc/passwd",
    ):
        with pytest.raises((Unusable, Malformed)):
            fetcher(server, tmp_path).fetch(url)
    assert server.asked == []


def test_the_rooms_services_are_known_and_keep_a_distance():
    known = {s.base: s.gap_seconds for s in vendors.services(vendors.Settings())}
    assert known[AMD] >= 1
    assert INTEL in known


@pytest.mark.parametrize(
    "text",
    ["service = 1", "[[service]]", '[[service]]\nbase = "ftp://x"', "warn_days = -1", "unknown = 1", "=",
     '[[service]]\nbase = "https://x"\ngap_seconds = -1'],
)  # fmt: skip
def test_settings_that_are_wrong(tmp_path, text):
    path = tmp_path / "collateral.toml"
    path.write_text(text)
    with pytest.raises(Malformed):
        vendors.load(path)


def test_what_is_due():
    now = datetime.now(UTC)
    old = entry("https://a.example/x", fetched=now - timedelta(days=400))
    certificate = msgspec.structs.replace(old, kind=statements.CERTIFICATE, expires=now + timedelta(days=1))
    assert not vendors.is_due(certificate, now)
    assert vendors.is_due(msgspec.structs.replace(certificate, expires=now), now)
    assert vendors.is_due(old, now)
    assert not vendors.is_due(msgspec.structs.replace(old, fetched=now), now)


# --- the store ---------------------------------------------------------------------------------------------------


def entry(url, body=b'{"a":1}', fetched=None):
    return collateral.entry(url, body, [], fetched or datetime.now(UTC))


def writer(folder, number):
    store = Store(folder)
    for i in range(60):
        store.put(entry(f"https://a.example/{i % 5}", json.dumps({"by": number, "i": i, "pad": "x" * 5000}).encode()))


def test_two_processes_write_and_a_third_reads_whole_entries(tmp_path):
    store = Store.make(tmp_path / "store")
    context = multiprocessing.get_context("spawn")
    writing = [context.Process(target=writer, args=(store.path, n)) for n in (1, 2)]
    for process in writing:
        process.start()
    seen = 0
    while any(process.is_alive() for process in writing):
        seen += sum(1 for _ in store.entries())  # a torn file would be `Unusable`
        time.sleep(0.005)
    for process in writing:
        process.join()
        assert process.exitcode == 0
    assert (len(list(store.entries())), seen > 0) == (5, True)
    assert not list(store.path.glob(".*.tmp"))


def test_two_processes_ask_a_host_one_after_the_other(server, chip, tmp_path):
    settings = server.settings(tmp_path, gap=0.5)
    code = (
        "import sys; from pathlib import Path; from casemate.drivers import vendors, collateral\n"
        "f = vendors.Fetcher(collateral.Store.make(Path(sys.argv[1])), vendors.load(Path(sys.argv[2])))\n"
        "f.fetch(sys.argv[3])"
    )
    urls = list(amd(chip))[:2]
    command = [sys.executable, "-c", code, str(tmp_path / "store"), str(settings)]
    running = [subprocess.Popen([*command, url]) for url in urls]
    assert [process.wait(60) for process in running] == [0, 0]
    times = [when for when, _ in server.asked]
    assert times[1] - times[0] >= 0.49


def test_a_damaged_or_exchanged_file_is_said(tmp_path):
    store = Store.make(tmp_path / "store")
    store.put(entry("https://a.example/1"))
    store.put(entry("https://a.example/2"))
    first, second = sorted(store.path.glob("*.json"))
    for text in (first.read_text()[:-9], first.read_text().replace("eyJhIjoxfQ==", "eyJhIjoyfQ=="), second.read_text()):
        first.write_text(text)
        with pytest.raises(Unusable, match="damaged"):
            list(store.entries())


def test_the_store_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(collateral, "MAX_ENTRIES", 2)
    store = Store.make(tmp_path / "store")
    for name in "112":
        store.put(entry(f"https://a.example/{name}"))
    with pytest.raises(Unusable, match="holds 2"):
        store.put(entry("https://a.example/3"))


@pytest.mark.parametrize(
    "url", ["ftp://a.example/x", "https://", "https://a.example/x#y", "https://a.example/" + "x" * 5000, "../../etc"]
)
def test_urls_that_collateral_cannot_have(url):
    with pytest.raises(Malformed):
        entry(url)


def test_a_header_that_was_not_sent_is_missing(tmp_path):
    store = Store.make(tmp_path / "store")
    store.put(entry("https://a.example/x"))
    with pytest.raises(Absent, match="#Some-Chain"):
        store.fetch("https://a.example/x#Some-Chain")


def test_no_store_is_said(tmp_path):
    with pytest.raises(Unusable, match="no collateral"):
        Store(tmp_path / "none")
    with pytest.raises(Absent):
        collateral.offline(None)("https://a.example/x#y")


# --- bundles -----------------------------------------------------------------------------------------------------


def test_a_bundle_carries_a_store_over_an_air_gap(server, platform, tmp_path):
    evidence, tdx = FakeTd(platform).collect(ASKED), room("tdx")
    filled = fetcher(server, tmp_path)
    tdx.endorse(evidence, filled.fetch)
    bundle = tmp_path / "bundle.json"
    assert collateral.write_bundle(bundle, filled.store.entries()) == 4
    assert tdx.endorse(evidence, Store(bundle).fetch).collateral == platform.collateral
    other = Store.make(tmp_path / "other")
    assert collateral.add(other, collateral.read_bundle(bundle)) == (4, 0)
    assert collateral.add(other, collateral.read_bundle(bundle)) == (0, 4)
    assert tdx.endorse(evidence, other.fetch).collateral == platform.collateral
    with pytest.raises(Unusable, match="only read"):
        Store(bundle).put(entry("https://a.example/x"))


def test_import_keeps_the_newer(tmp_path):
    now = datetime.now(UTC)

    def until(days, fetched=now):
        end = (now + timedelta(days=days)).isoformat()
        return entry("https://a.example/x", json.dumps({"nextUpdate": end}).encode(), fetched)

    store = Store.make(tmp_path / "store")
    store.put(until(10))
    assert collateral.add(store, [until(5), until(5, now + timedelta(days=3))]) == (0, 2)
    assert collateral.add(store, [until(11, now - timedelta(days=3))]) == (1, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "format"),
        ({"extra": 1}, "unknown field"),
        ({"entries": [{}]}, "missing"),
        ({"digest": "sha256:" + "0" * 64}, "another digest"),
        ({"url": "../../../etc/passwd"}, "cannot have"),
        ({"body": "PGh0bWw+"}, "another digest"),
        ({"fetched": "2026-01-01T00:00:00"}, "time"),
        ({"chains": {"x-chain": "no"}}, "certificates"),
    ],
)
def test_bundles_that_are_wrong(tmp_path, change, message):
    bundle = tmp_path / "bundle.json"
    collateral.write_bundle(bundle, [entry("https://a.example/x")])
    document = json.loads(bundle.read_text())
    (name,) = change
    (document["entries"][0] if name in document["entries"][0] else document).update(change)
    bundle.write_text(json.dumps(document))
    with pytest.raises(Malformed, match=message):
        collateral.read_bundle(bundle)


def test_what_a_bundle_says_of_its_content_is_not_believed(tmp_path):
    bundle = tmp_path / "bundle.json"
    collateral.write_bundle(bundle, [entry("https://a.example/x", b'{"nextUpdate":"2026-01-01T00:00:00Z"}')])
    document = json.loads(bundle.read_text())
    document["entries"][0] |= {"expires": "2099-01-01T00:00:00Z", "about": "\x1b[31m", "kind": "certificate"}
    bundle.write_text(json.dumps(document))
    (found,) = collateral.read_bundle(bundle)
    assert (found.kind, found.expires.year, found.about) == ("document", 2026, "")


# --- what an answer is -------------------------------------------------------------------------------------------


def test_answers_are_told_by_their_content(chip, platform):
    root = pki.Authority("Fake root")
    crl = root.crl(end=pki.END)
    said = statements.read(crl.hex().encode())
    assert (said.kind, said.body, said.expires) == (statements.LIST, crl, pki.END)
    vcek = chip.chain[0][1]
    assert statements.read(vcek).kind == statements.CERTIFICATE
    assert statements.read(b'{"tcbInfo":' + platform.collateral["tcb_info"] + b"}").about.startswith(
        "id=TDX fmspc=90C0"
    )


def test_an_ocsp_response_is_kept_until_its_next_update():
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509 import ocsp

    root = pki.Authority("Fake root")
    issuer = x509.load_der_x509_certificate(root.certificate)
    leaf = x509.load_der_x509_certificate(root.issue("Fake leaf", pki.p384()))
    builder = ocsp.OCSPResponseBuilder().add_response(
        leaf, issuer, hashes.SHA256(), ocsp.OCSPCertStatus.GOOD, pki.NOW, pki.NOW + timedelta(days=1), None, None
    )
    made = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, issuer).sign(root.key, hashes.SHA384())
    said = statements.read(made.public_bytes(Encoding.DER))
    assert (said.kind, said.expires) == (statements.STATUS, pki.NOW + timedelta(days=1))
    unwilling = ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.TRY_LATER)
    with pytest.raises(Malformed, match="TRY_LATER"):
        statements.read(unwilling.public_bytes(Encoding.DER))


def test_a_store_that_is_kept_in_mind_shows_every_change(server, chip, tmp_path, monkeypatch):
    """What a broker does for each guest; the folder's own state is kept, and looked at each time."""
    monkeypatch.setattr(collateral, "_SETTLED", -(10**12))  # as if all of it was old
    place = tmp_path / "store"
    with pytest.raises(Absent):
        collateral.offline(place)(CRL)
    fetcher(server, tmp_path).fetch(CRL)
    first = collateral.offline(place)(CRL)
    assert collateral.offline(place)(CRL) == first
    store, old = Store(place), Store(place).get(CRL)
    newer = collateral.entry(CRL, chip.ark.crl([chip.ask.certificate]), (), old.fetched)
    store.put(newer)
    assert collateral.offline(place)(CRL) == newer.body != first
    (place / collateral._name(CRL)).unlink()
    with pytest.raises(Absent):
        collateral.offline(place)(CRL)
    bundle = tmp_path / "bundle.json"
    for held in (old, newer):
        collateral.write_bundle(bundle, [held])
        for _ in range(2):
            assert collateral.offline(bundle)(CRL) == held.body
    for path in place.iterdir():
        path.unlink()
    (place / "letter.txt").write_text("something else")
    with pytest.raises(Unusable):
        collateral.offline(place)(CRL)
