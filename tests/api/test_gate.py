"""What every request passes: ids, rates, requests under way."""

import asyncio
import json
import re
import threading

import pytest

from casemate.api import peers
from casemate.api.rates import MAX_PEERS, Buckets, Flight, exempt
from casemate.drivers.store import record
from casemate.testing import broker as brokers
from casemate.testing.broker import Guest, rules


@pytest.fixture(scope="module")
def strict(tmp_path_factory):
    """A broker whose loopback has a rate, like any other address."""
    made = brokers.start(tmp_path_factory.mktemp("strict"), rate=0.001, burst=5, rate_exempt=())
    made.trust()
    yield made
    made.stop()


@pytest.fixture
def fresh(strict):
    """Every peer has its burst again."""
    gate = strict.app.gate
    gate.buckets._left.clear()
    return strict


def test_an_id_of_the_caller_comes_back(service):
    assert (
        service.call("GET", "/casemate/v0/info", **{"X-Request-Id": "abc-1.2_3"}).headers["x-request-id"] == "abc-1.2_3"
    )


@pytest.mark.parametrize("given", [None, "", "a b", "x" * 65, "é", "-a", '"}', "a,b"])
def test_any_other_id_is_ours(service, given):
    headers = {} if given is None else {"X-Request-Id": given}
    try:
        got = service.call("GET", "/nowhere", **headers)
    except UnicodeError:
        pytest.skip("the client can't send it")
    assert re.fullmatch("[0-9a-f]{32}", got.headers["x-request-id"])


def test_errors_carry_the_id_too(service):
    for method, path in (
        ("GET", "/nowhere"),
        ("PUT", "/kbs/v0/auth"),
        ("POST", "/kbs/v0/auth"),
        ("GET", "/casemate/v0/admin/apps"),
    ):
        assert service.call(method, path, **{"X-Request-Id": "me"}).headers["x-request-id"] == "me"


def test_a_stranger_is_told_when_to_come_back(fresh):
    got = [fresh.call("POST", "/kbs/v0/auth", {}) for _ in range(6)]
    assert [one.status for one in got] == [400] * 5 + [429]
    last = got[-1]
    assert int(last.headers["retry-after"]) >= 1
    assert last.json()["type"].endswith("/TooManyRequests")
    assert fresh.call("GET", "/healthz").status == 200  # monitors go on
    assert fresh.call("GET", "/metrics").status == 200


def test_whoever_shows_good_credentials_is_not_counted(fresh):
    for _ in range(12):
        assert fresh.admin.apps() is not None
    assert fresh.call("GET", "/casemate/v0/info").status == 200


def test_guessing_is_as_slow_as_asking(fresh):
    got = [fresh.call("GET", "/casemate/v0/admin/apps", Authorization="Bearer x.y.z").status for _ in range(7)]
    assert got[:5] == [401] * 5
    assert 429 in got[5:]


@pytest.mark.parametrize(
    "shown", [{"Authorization": "x"}, {"Authorization": "Bearer x.y.z"}, {"Cookie": "kbs-session-id=x"}]
)
def test_what_merely_looks_like_credentials_is_charged(fresh, shown):
    asked = {"version": "0.4.0", "tee": "nothing", "extra-params": ""}
    for method, path, body in (("POST", "/kbs/v0/auth", asked), ("GET", "/casemate/v0/info", None)):
        fresh.app.gate.buckets._left.clear()
        got = [fresh.call(method, path, body, **shown).status for _ in range(6)]
        assert 429 not in got[:5]
        assert got[5] == 429


def test_refusals_of_strangers_leave_no_row(service):
    with service.broker.store.read() as tx:
        before = record.decisions(tx, 1000)
    for _ in range(3):
        got = service.call("POST", "/kbs/v0/auth", {"version": "0.4.0", "tee": "sample", "extra-params": ""})
        assert got.json()["reasons"], got.body
    with service.broker.store.read() as tx:
        assert record.decisions(tx, 1000) == before


def test_a_guest_with_a_session_is_served_beside_strangers(fresh):
    app = fresh.found()
    fresh.admin.put_resource(app.app_id, f"kbs:///{app.path}", b"a value")
    guest = Guest(fresh, app.manifest)
    guest.handshake()
    for _ in range(8):
        got = guest.get(app.path)
        assert got.status == 200, got.body
    assert guest.open(got) == b"a value"


def test_buckets_fill_again():
    now = [0.0]
    made = Buckets(2, 4, clock=lambda: now[0])
    for _ in range(4):
        assert made.wait("a") == 0
        made.take("a")
    assert made.wait("a") == 1
    assert made.wait("b") == 0
    now[0] += 0.5
    assert made.wait("a") == 0
    made.take("a")
    assert made.wait("a") == 1
    now[0] += 100
    for _ in range(4):
        assert made.wait("a") == 0
        made.take("a")
    assert made.wait("a") == 1


def test_debts_have_an_end():
    now = [0.0]
    made = Buckets(1, 3, clock=lambda: now[0])
    for _ in range(100):
        made.take("a")
    assert made.wait("a") == 4  # one burst, and the one to come


def test_rate_0_sets_no_bound():
    made = Buckets(0, 1)
    for _ in range(10):
        made.take("a")
    assert made.wait("a") == 0


def test_the_table_of_peers_is_bounded():
    made = Buckets(1, 1)
    for number in range(MAX_PEERS + 10):
        made.take(str(number))
    assert len(made._left) == MAX_PEERS
    assert made.wait("0") == 0
    assert made.wait(str(MAX_PEERS)) > 0


def test_requests_under_way_are_shared():
    made = Flight(16)
    assert [made.begin("a") for _ in range(3)] == ["", "", "peer"]
    assert [made.begin(peers.LOOPBACK) for _ in range(14)] == [""] * 14
    assert made.begin("b") == "all"
    made.end("a")
    assert made.begin("b") == ""
    for who in ("a", "b", *[peers.LOOPBACK] * 14):
        made.end(who)
    assert made.now == 0
    assert not made._held


@pytest.mark.parametrize(
    ("address", "asked"),
    [("127.0.0.1", True), ("::1", True), ("::ffff:127.0.0.1", True), ("192.0.2.1", False), ("", False), (None, False),
     ("fe80::1%eth0", False), ("2001:db8::1", True)],
)  # fmt: skip
def test_networks_that_are_not_asked(address, asked):
    assert exempt(("127.0.0.0/8", "::1/128", "2001:db8::/32"))(address) is asked


def test_too_many_at_once(tmp_path):
    """Requests that wait for each other: one more than there is room for is told so, and the others are served."""
    made = brokers.start(tmp_path, requests=1)
    waiting, go = threading.Semaphore(0), threading.Event()

    async def slow(request):
        waiting.release()
        await asyncio.get_running_loop().run_in_executor(None, go.wait, 10)
        from starlette.responses import Response

        return Response("done")

    from starlette.routing import Route

    made.app.router.routes.append(Route("/slow", slow))
    try:
        got = []
        asking = threading.Thread(target=lambda: got.append(made.call("GET", "/slow")))
        asking.start()
        waiting.acquire(timeout=5)
        beyond = made.call("GET", "/casemate/v0/info")
        assert beyond.status == 503
        assert beyond.headers["retry-after"] == "1"
        go.set()
        asking.join(10)
        assert got[0].status == 200
        assert made.call("GET", "/casemate/v0/info").status == 200
    finally:
        go.set()
        made.stop()


def test_a_405_names_every_method_of_the_path(service):
    got = service.call("PUT", "/casemate/v0/admin/apps")
    assert (got.status, got.headers["allow"]) == (405, "GET, HEAD, POST")
    assert service.call("POST", "/metrics").status == 405
    assert rules(service.call("GET", "/casemate/v0/admin/apps")) == ["admin.token"]
    assert json.loads(got.body)["reasons"] == []
