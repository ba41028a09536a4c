"""Bodies and heads: too long, cut short, malformed; no 5xx, and the service goes on."""

import asyncio
import json
import os
import socket
import ssl

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from casemate.api import peers
from casemate.api.answers import Busy, Intake
from casemate.api.application import Journal
from casemate.broker import decide, resources
from casemate.guest.attest import MAX_RESOURCE
from casemate.testing import broker as brokers
from casemate.testing.broker import Guest, rules

GOOD = {"version": "0.4.0", "tee": "tpm", "extra-params": {}}


def raw(service, data, *, end=True):
    """Whatever the broker answers to these bytes."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    plain = socket.create_connection(("127.0.0.1", service.broker.settings.port), timeout=10)
    with context.wrap_socket(plain) as peer:
        try:
            peer.sendall(data)
        except OSError:
            return b""
        if end:
            return b""
        try:
            found = b""
            while piece := peer.recv(65536):
                found += piece
        except OSError:
            pass
        return found


def read_whole(monkeypatch):
    """How often the broker began to judge an attestation, or could not read one."""
    said = []
    for name in ("attest", "wasted"):
        act = getattr(decide, name)
        monkeypatch.setattr(decide, name, lambda *told, act=act, name=name: (said.append(name), act(*told))[1])
    return said


@pytest.mark.parametrize(
    "spoil",
    [
        lambda body: b"{",
        lambda body: b'{"a":[' + b"{}," * 2_700_000 + b"{}]}",
        lambda body: {**body, "tee-evidence": {**body["tee-evidence"], "additional_evidence": "{"}},
        lambda body: {**body, "init-data": {"format": "json", "body": ""}},
    ],
)
def test_rubbish_answers_a_challenge_too(service, monkeypatch, spoil):
    guest = Guest(service)
    guest.auth()
    good = guest.body()
    assert service.call("POST", "/kbs/v0/attest", spoil(good), Cookie=guest.cookie).status == 400
    again = service.call("POST", "/kbs/v0/attest", good, Cookie=guest.cookie)
    assert (again.status, rules(again)) == (401, ["session.replay"])
    said = read_whole(monkeypatch)
    long = service.call("POST", "/kbs/v0/attest", b" " * (1 << 20), Cookie=guest.cookie)
    assert (long.status, rules(long), said) == (401, ["session.replay"], [])
    assert guest.handshake().status == 200


def test_bodies_of_many_small_values_are_not_read(service):
    for body in (b'{"a":[' + b"{}," * 2_700_000 + b"{}]}", b'{"a":[' + b"1.5," * 2_000_000 + b"1]}"):
        guest = Guest(service)
        guest.auth()
        answer = service.call("POST", "/kbs/v0/attest", body, Cookie=guest.cookie)
        assert answer.status == 400
        assert "more than 200000 values" in answer.json()["detail"]


def status(answer):
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


def alive(service):
    assert service.call("GET", "/healthz").status == 200


@pytest.mark.parametrize(
    ("path", "limit"),
    [("/kbs/v0/auth", 64 << 10), ("/kbs/v0/attest", 8 << 20), ("/casemate/v0/volumes/data/open", 128 << 10)],
)
def test_bodies_beyond_their_bound(service, path, limit):
    guest = Guest(service)
    guest.auth()
    at_bound = service.call("POST", path, b" " * limit, Cookie=guest.cookie)
    assert at_bound.status in (400, 401)
    guest.auth()  # the first answer spent its question
    beyond = service.call("POST", path, b" " * (limit + 1), Cookie=guest.cookie)
    assert beyond.status == 413
    assert beyond.json()["type"].endswith("/PayloadTooLarge")
    alive(service)


def test_a_long_body_without_a_declared_length(service):
    head = b"POST /kbs/v0/auth HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"4000\r\n" + b" " * 0x4000 + b"\r\n"
    answer = raw(service, head + chunk * 6 + b"0\r\n\r\n", end=False)
    assert status(answer) == 413
    alive(service)


def test_a_resource_that_no_guest_would_take_is_not_stored(service):
    app = service.found()
    path = f"/kbs/v0/resource/{app.path}?app={app.app_id}"
    token = f"Bearer {service.admin.token()}"
    longest = os.urandom(resources.MAX_VALUE)
    beyond = service.call("POST", path, longest + b"x", Authorization=token)
    assert beyond.status == 413
    assert f"at most {resources.MAX_VALUE} are allowed" in beyond.json()["detail"]
    assert service.call("POST", path, longest, Authorization=token).status == 200
    guest = Guest(service, app.manifest)
    guest.handshake()
    got = guest.get(app.path)
    assert got.status == 200
    assert len(got.body) < MAX_RESOURCE


def test_long_attestations_are_not_read_for_strangers(service):
    got = service.call("POST", "/kbs/v0/attest", b" " * (8 << 20))
    assert (got.status, rules(got)) == (401, ["session.absent"])


def test_bodies_share_a_bounded_memory():
    intake = Intake(800)
    for who in "abcdefg":
        intake.take(100, who)
    with pytest.raises(Busy):
        intake.take(1, "a")  # an eighth for each
    intake.give(100, "a")
    intake.take(200, peers.LOOPBACK)
    with pytest.raises(Busy):
        intake.take(1, "h")  # there is no more
    for who in "bcdefg":
        intake.give(100, who)
    intake.take(500, peers.LOOPBACK)
    with pytest.raises(Busy):
        intake.take(1, peers.LOOPBACK)  # it leaves one share to others
    intake.take(100, "h")


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("127.0.0.1", peers.LOOPBACK),
        ("127.9.9.9", peers.LOOPBACK),
        ("::1", peers.LOOPBACK),
        ("::ffff:127.0.0.1", peers.LOOPBACK),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        (None, ""),
    ],
)
def test_peers_by_address(address, name):
    assert peers.peer(address) == name


@pytest.mark.parametrize(
    "head", [b"Content-Length: 100\r\n\r\n" + b" " * 99, b"Transfer-Encoding: chunked\r\n\r\n20\r\n" + b" " * 31]
)
def test_a_body_that_never_ends_is_given_up(service, head, monkeypatch):
    monkeypatch.setattr("casemate.api.answers.BODY_SECONDS", 0.2)
    monkeypatch.setattr("casemate.api.answers.BODY_PACE", 1 << 40)
    intake = service.intake
    whole = intake.left
    answer = raw(service, b"POST /kbs/v0/auth HTTP/1.1\r\nHost: a\r\n" + head, end=False)
    assert status(answer) == 408
    assert b"/RequestTimeout" in answer
    assert intake.left == whole
    alive(service)


def test_get_with_a_body(service):
    assert service.call("GET", "/casemate/v0/info", b"x").status == 413


@pytest.mark.parametrize("sent", [0, 1, 20])
def test_a_body_that_is_cut_short(service, sent):
    body = json.dumps(GOOD).encode()
    head = f"POST /kbs/v0/auth HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    raw(service, head + body[:sent])
    alive(service)


def test_a_head_beyond_its_bound_and_one_below(service):
    below = raw(
        service,
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX: " + b"a" * 250_000 + b"\r\n\r\n",
        end=False,
    )
    assert status(below) == 200
    for size in (300_000, 3_000_000):
        head = b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX: " + b"a" * size + b"\r\n\r\n"
        assert status(raw(service, head, end=False)) in (0, 400, 431)
    alive(service)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/9.9\r\nConnection: close\r\n\r\n",
        b"\x16\x03\x01\x00\x00",
        b"POST /kbs/v0/auth HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST /kbs/v0/auth HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: close\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /kbs/v0/auth HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /kbs/v0/resource/a/b/%00 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"GET /kbs/v0/resource/a/b/%ff%fe HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"GET /kbs/v0/resource/../../etc HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"GET /kbs/v0/resource/a/b/c HTTP/1.1\r\nHost: a\r\nCookie: \xff\xfe=\xfd\r\nConnection: close\r\n\r\n",
        b"GET /kbs/v0/resource/a/b/c HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer \xff\r\nConnection: close\r\n\r\n",
    ],
)
def test_broken_http(service, data):
    answer = raw(service, data, end=False)
    assert status(answer) < 500
    alive(service)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"{}", b'{"version":1}', b'{"version":"0.4.0"}', b'{"version":"0.4.0","tee":7}',
     b"\xff", b'{"version":"0.4.0","tee":"tpm","tee":"x"}', b"[" * 5000, b'{"a":' * 2000 + b"1" + b"}" * 2000, b"NaN",
     rb'{"version":"\ud800","tee":"tpm"}', rb'{"\ud800":1}', rb'{"nonce":{"a":["\udfff"]}}'],
)  # fmt: skip
def test_malformed_json(service, body):
    guest = Guest(service)
    guest.auth()
    for path in ("/kbs/v0/auth", "/kbs/v0/attest"):
        got = service.call("POST", path, body, Cookie=guest.cookie)
        assert got.status == 400, (path, got.body)
        assert set(got.json()) >= {"type", "detail", "reasons"}
    alive(service)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["version", "tee", "extra-params", "x"]), JSON))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_json_at_auth(service, body):
    assert service.call("POST", "/kbs/v0/auth", body).status in (200, 400, 401, 403)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "init-data": JSON | st.fixed_dictionaries({"format": st.just("toml"), "body": st.text(max_size=60)}),
            "runtime-data": JSON
            | st.fixed_dictionaries({"nonce": st.just("NONCE"), "tee-pubkey": st.just("KEY") | JSON}),
            "tee-evidence": JSON
            | st.fixed_dictionaries({"primary_evidence": JSON, "additional_evidence": st.just("")}),
        },
    )
)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_json_at_attest(service, body):
    guest = Guest(service)
    guest.auth()
    runtime = body.get("runtime-data")
    if isinstance(runtime, dict) and runtime.get("nonce") == "NONCE":
        body = {**body, "runtime-data": {**runtime, "nonce": guest.nonce}}
        if runtime.get("tee-pubkey") == "KEY":
            body["runtime-data"]["tee-pubkey"] = guest.jwk
    assert guest.attest(body).status in (400, 401, 403)


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/", 404),
        ("GET", "/kbs/v0/auth", 405),
        ("GET", "/kbs/v0/nothing/a/b", 404),
        ("GET", "/kbs/v0/resource/a/b", 404),
        ("GET", "/kbs/v0/resource/a/b/c/d", 404),
        ("GET", "/kbs/v0/resource/.a/b/c", 401),
        ("DELETE", "/casemate/v0/info", 405),
        ("GET", "/casemate/v0/apps/nothing", 404),
    ],
)
def test_paths_that_are_not_there(service, method, path, expected):
    got = service.call(method, path)
    assert got.status == expected
    assert set(got.json()) >= {"type", "detail", "reasons"}


def test_paths_in_other_characters(service):
    guest = Guest(service, service.found().manifest)
    guest.handshake()
    for path in (".a/b/c", "a/b/c%20d", "a/b/" + "c" * 600):
        assert guest.get(path).status == 404


def test_only_tls_1_3(service):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(("127.0.0.1", service.broker.settings.port), timeout=5) as plain:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            context.wrap_socket(plain)


def test_a_stranger_who_says_nothing_does_not_stop_others(service):
    idle = [socket.create_connection(("127.0.0.1", service.broker.settings.port)) for _ in range(50)]
    try:
        alive(service)
    finally:
        for peer in idle:
            peer.close()


def opened(service):
    """A TLS connection that says nothing yet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(socket.create_connection(("127.0.0.1", service.broker.settings.port), timeout=10))


def dropped(peer):
    """Whether the broker ends the connection, whatever it says before."""
    try:
        while peer.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


@pytest.mark.parametrize("said", [b"", b"GET /heal", b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: y"])
def test_a_head_that_never_ends_is_given_up(service, said, monkeypatch):
    monkeypatch.setattr("casemate.api.protocol.HEAD_SECONDS", 0.3)
    with opened(service) as peer:
        peer.sendall(said)
        assert dropped(peer)
    alive(service)


@pytest.mark.parametrize("path", [b"/healthz", b"/nowhere"])
def test_a_later_head_that_never_ends_is_given_up_too(service, path, monkeypatch):
    monkeypatch.setattr("casemate.api.protocol.HEAD_SECONDS", 0.5)
    whole = b"GET " + path + b" HTTP/1.1\r\nHost: a\r\n\r\n"
    with opened(service) as peer:
        for _ in range(2):
            peer.sendall(whole)
            found = b""
            while not found.endswith(b"}"):
                found += peer.recv(65536)
        peer.sendall(whole[:-2])
        assert dropped(peer)


def test_a_handshake_that_never_ends_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr("casemate.api.server.HANDSHAKE_SECONDS", 0.3)
    made = brokers.start(tmp_path)
    try:
        with socket.create_connection(("127.0.0.1", made.broker.settings.port), timeout=10) as peer:
            assert dropped(peer)
    finally:
        made.stop()


def test_one_peer_leaves_connections_to_others_and_gets_them_back(tmp_path, monkeypatch):
    monkeypatch.setattr("casemate.api.protocol.HEAD_SECONDS", 3)
    made = brokers.start(tmp_path, connections=16)
    held = []
    try:
        held = [opened(made) for _ in range(14)]  # loopback's share
        with opened(made) as beyond:
            assert dropped(beyond)
        assert all(dropped(peer) for peer in held)
        alive(made)
    finally:
        for peer in held:
            peer.close()
        made.stop()


def test_what_nobody_foresaw_is_a_number_to_the_caller_and_no_text_in_the_log(caplog):
    async def broken(scope, receive, send):
        raise ValueError("the caller's secret")

    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/x", "headers": []}
    asyncio.run(Journal(broken)(scope, None, send))
    assert sent[0]["status"] == 500
    assert json.loads(sent[1]["body"])["detail"].startswith("internal error, incident ")
    assert "unexpected ValueError" in caplog.text
    assert "secret" not in caplog.text.replace('ValueError("the caller\'s secret")', "")  # the frame's source line
