"""No answer leaves before what was decided for it is on disk: a real broker, a real SQLite, a log that is held up."""

import asyncio
import json
import socket
import ssl
import threading
from types import SimpleNamespace

import pytest
from sqlalchemy import text

from casemate.api import answers, pool
from casemate.broker import held
from casemate.errors import Unavailable
from casemate.testing import broker as brokers
from casemate.testing.broker import Guest, rules


class Gate:
    """The log's commits, one of which can be kept waiting."""

    def __init__(self, broker):
        self.open, self.waiting = threading.Event(), threading.Event()
        self.open.set()
        self._log, broker.log._writer._commit = broker.log, self._commit

    def _commit(self, tx, batch):
        if batch and not self.open.is_set():
            self.waiting.set()
            self.open.wait(20)
        self._log._commit(tx, batch)


@pytest.fixture
def one(tmp_path):
    """A broker with a single thread for requests."""
    made = brokers.start(tmp_path, threads=1, drain_seconds=1)
    made.trust()
    made.gate = Gate(made.broker)
    yield made
    made.gate.open.set()
    made.stop()


def sent(service, guest, body=None):
    """A connection on which an attestation was sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    plain = socket.create_connection(("127.0.0.1", service.broker.settings.port), timeout=20)
    peer = context.wrap_socket(plain)
    data = json.dumps(body or guest.body()).encode()
    head = f"POST /kbs/v0/attest HTTP/1.1\r\nHost: a\r\nCookie: {guest.cookie}\r\nContent-Length: {len(data)}\r\n\r\n"
    peer.sendall(head.encode() + data)
    return peer


def said(peer):
    """The whole answer."""
    found = b""
    while b"\r\n\r\n" not in found or not found.endswith(b"}"):
        piece = peer.recv(65536)
        if not piece:
            break
        found += piece
    return found


def nothing_yet(peer):
    peer.settimeout(0.3)
    with pytest.raises(TimeoutError):
        peer.recv(1)
    peer.settimeout(20)
    return True


def decisions(service):
    with service.broker.store.read() as tx:
        return tx.execute(text("SELECT count(*) FROM decisions WHERE act = 'attest'")).scalar_one()


@pytest.mark.parametrize(("register", "status"), [(True, 200), (False, 403)])
def test_a_grant_and_a_refusal_wait_for_the_log_and_no_thread_waits_with_them(one, register, status):
    guest = Guest(one, one.found(register=register).manifest)
    guest.auth()
    one.gate.open.clear()
    with sent(one, guest) as peer:
        assert one.gate.waiting.wait(20)
        assert nothing_yet(peer)
        assert Guest(one).auth().status == 200  # the only thread is free
        assert one.call("GET", "/readyz").status == 200
        one.gate.open.set()
        answer = said(peer)
    assert answer.startswith(b"HTTP/1.1 %d" % status)
    assert (b'"token"' in answer) == (status == 200)
    assert decisions(one) == 1


@pytest.mark.parametrize("register", [True, False])
def test_what_cannot_be_recorded_is_neither_granted_nor_refused(one, register, caplog):
    app = one.found(register=register)
    guest = Guest(one, app.manifest)
    guest.auth()
    with one.broker.store.write() as tx:
        tx.execute(text("CREATE TRIGGER full BEFORE INSERT ON decisions BEGIN SELECT RAISE(ABORT, 'full'); END"))
    got = guest.attest()
    assert got.status in (500, 503)
    assert b"token" not in got.body
    assert "casemate-receipt" not in got.headers
    assert "set-cookie" not in got.headers
    assert b"reasons" in got.body
    assert got.json()["reasons"] == []
    with one.broker.store.write() as tx:
        tx.execute(text("DROP TRIGGER full"))
    assert decisions(one) == 0
    again = guest.attest()  # the nonce was not used up
    assert again.status == (200 if register else 403)


def test_a_secret_is_not_released_when_that_cannot_be_recorded(one):
    app = one.found()
    one.admin.put_resource(app.app_id, f"kbs:///{app.path}", b"secret")
    guest = Guest(one, app.manifest)
    guest.handshake()
    with one.broker.store.write() as tx:
        tx.execute(text("CREATE TRIGGER full BEFORE INSERT ON log_openings BEGIN SELECT RAISE(ABORT, 'full'); END"))
    got = guest.get(app.path)
    assert got.status in (500, 503)
    assert b"ciphertext" not in got.body
    with one.broker.store.write() as tx:
        tx.execute(text("DROP TRIGGER full"))
    assert guest.open(guest.get(app.path)) == b"secret"


def test_of_two_answers_to_one_nonce_one_is_thrown_away(one):
    guest = Guest(one, one.found().manifest)
    guest.auth()
    body = guest.body()
    one.gate.open.clear()
    with sent(one, guest, body) as first, sent(one, guest, body) as second:
        assert one.gate.waiting.wait(20)
        assert nothing_yet(first)
        assert nothing_yet(second)
        one.gate.open.set()
        told = [said(first), said(second)]
    assert sorted(answer.split(b" ")[1] for answer in told) == [b"200", b"401"]
    assert [b'"token"' in answer for answer in told].count(True) == 1


def test_a_client_that_leaves_changes_nothing(one):
    guest = Guest(one, one.found().manifest)
    guest.auth()
    body = guest.body()
    one.gate.open.clear()
    with sent(one, guest, body):
        assert one.gate.waiting.wait(20)
    one.gate.open.set()
    replayed = guest.attest(body)
    assert (replayed.status, rules(replayed)) == (401, ["session.replay"])
    assert decisions(one) >= 1  # a replay that is seen before its evidence is read is only counted


def test_when_the_time_to_drain_is_over_the_connection_ends_without_an_answer(one):
    guest = Guest(one, one.found().manifest)
    guest.auth()
    one.gate.open.clear()
    with sent(one, guest) as peer:
        assert one.gate.waiting.wait(20)
        one.server.should_exit = True
        try:
            assert peer.recv(65536) == b""
        except OSError:
            pass


class _Made(Exception):
    pass


def _endpoint(act, steps):
    """The answer of an endpoint whose act holds `steps`."""
    threads = pool.Pool(1)

    asked = SimpleNamespace(app=SimpleNamespace(state=SimpleNamespace(pool=threads)), scope={})

    def acting(request, body):
        held._HOLDS.get().append(steps)
        return act()

    async def ask():
        return await answers._run(acting, asked, b"")

    try:
        return asyncio.run(ask())
    finally:
        threads.close()


@pytest.mark.parametrize("raised", [_Made("a caller's secret"), SystemExit(3)])
def test_a_failed_act_waits_too_and_gives_way_to_the_error_of_the_log(monkeypatch, raised):
    settled = []

    async def settle(holds):
        settled.extend(holds)
        raise Unavailable("the log is not there")

    def act():
        raise raised

    monkeypatch.setattr(held, "settled", settle)
    monkeypatch.setattr(answers, "failure", lambda error, request: error)
    assert str(_endpoint(act, "hold")) == "the log is not there"
    assert settled == ["hold"]
