"""Key sets of issuers: from files, over real https, by discovery; fetched seldom, kept for a while, bounded."""

import json
import threading

import pytest

from casemate.drivers import issuers
from casemate.drivers.issuers import AGAIN, FRESH, RETRY, STALE, Keys, Source
from casemate.errors import Unavailable
from casemate.testing import issuer as fakes
from casemate.testing.issuer import FakeIssuer

DISCOVERY, SET = "/.well-known/openid-configuration", "/keys"


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def site(tmp_path):
    with fakes.site(tmp_path) as made:
        (tmp_path / "ca.pem").write_bytes(made.ca)
        yield made


@pytest.fixture
def idp(site):
    made = FakeIssuer(site.url)
    site.pages = {DISCOVERY: document(site), SET: made.jwks()}
    return made


def document(site, **changes):
    return json.dumps({"issuer": site.url, "jwks_uri": site.url + SET, **changes}).encode()


@pytest.fixture
def keys(site, idp, clock, tmp_path):
    return Keys(Source(site.url, "", tmp_path / "ca.pem"), clock=clock)


def test_by_discovery_over_https(keys, site):
    assert [key.kid for key in keys.named("k1")] == ["k1"]
    assert site.asked == [DISCOVERY, SET]


def test_by_its_address(site, idp, clock, tmp_path):
    keys = Keys(Source("https://idp.example", site.url + SET, tmp_path / "ca.pem"), clock=clock)
    assert keys.named("k1")
    assert site.asked == [SET]


def test_from_a_file_that_changes(idp, clock, tmp_path):
    path = tmp_path / "set.json"
    path.write_bytes(idp.jwks())
    keys = Keys(Source("https://idp.example", str(path), None), clock=clock)
    assert keys.named("k1")
    idp.kid = "k2"
    path.write_bytes(idp.jwks())
    assert keys.named("k2") == ()
    clock.now += AGAIN + 1
    assert keys.named("k2")
    assert keys.named("k1") == ()


def test_a_set_is_fetched_once_in_a_while(keys, site, clock):
    for _ in range(20):
        keys.named("k1")
    assert site.asked.count(SET) == 1
    clock.now += FRESH + 1
    keys.named("k1")
    assert site.asked.count(SET) == 2


def test_strangers_cannot_make_us_fetch(keys, site, clock):
    keys.named("k1")
    for number in range(50):
        assert keys.named(f"x{number}") == ()
    assert site.asked.count(SET) == 1
    clock.now += AGAIN + 1
    for number in range(50):
        assert keys.named(f"x{number}") == ()
    assert site.asked.count(SET) == 2


def test_a_new_key_is_found(keys, site, idp, clock):
    keys.named("k1")
    idp.kid = "k2"
    site.pages[SET] = idp.jwks()
    clock.now += AGAIN + 1
    assert keys.named("k2")


def test_without_a_kid_only_a_set_of_one_key_counts(keys, site, idp, clock):
    assert keys.named(None)
    second = {**idp.jwk(), "kid": "k2"}
    site.pages[SET] = json.dumps({"keys": [idp.jwk(), second]}).encode()
    clock.now += FRESH + 1
    assert keys.named(None) == ()


def test_an_issuer_that_is_down_is_missed_only_after_a_while(keys, site, clock):
    keys.named("k1")
    site.pages = {}
    clock.now += FRESH + 1
    assert keys.named("k1")
    for _ in range(5):
        keys.named("k1")
    assert len(site.asked) == 3
    clock.now += STALE
    with pytest.raises(Unavailable):
        keys.named("k1")
    site.pages = {DISCOVERY: document(site), SET: FakeIssuer(site.url).jwks()}
    clock.now += RETRY
    assert keys.named("k1")


def test_an_issuer_that_never_answered(clock, tmp_path):
    keys = Keys(Source("https://127.0.0.1:1", "", None), clock=clock)
    with pytest.raises(Unavailable):
        keys.named("k1")


@pytest.mark.parametrize(
    "page",
    [
        {"issuer": "https://other.example"},
        {"issuer": None},
        {"jwks_uri": "http://127.0.0.1/keys"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": 1},
    ],
)
def test_discovery_documents_that_lead_astray(keys, site, page):
    site.pages[DISCOVERY] = document(site, **page)
    with pytest.raises(Unavailable):
        keys.named("k1")
    assert SET not in site.asked


@pytest.mark.parametrize("page", [b"", b"[]", b'{"keys":1}', b" " * (issuers.jws.MAX_SET + 1)])
def test_sets_that_are_none(keys, site, page):
    site.pages[SET] = page
    with pytest.raises(Unavailable):
        keys.named("k1")


def test_another_ca(site, idp, clock):
    keys = Keys(Source(site.url, "", None), clock=clock)
    with pytest.raises(Unavailable):
        keys.named("k1")
    assert site.asked == []


def test_one_thread_fetches(keys, site, clock):
    keys.named("k1")
    clock.now += FRESH + 1
    found = []
    threads = [threading.Thread(target=lambda: found.append(keys.named("k1"))) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found)
    assert site.asked.count(SET) == 2
