"""Slow peers, with real sockets: dripping heads and bodies, half-open TLS, many idle connections. Others are served,
every slow one is dropped, and what it held is free again."""

import socket
import ssl
import threading
import time

import pytest

from casemate.testing import broker as brokers

MANY = 60


@pytest.fixture
def hurried(tmp_path, monkeypatch):
    """A broker without patience."""
    monkeypatch.setattr("casemate.api.protocol.HEAD_SECONDS", 1.0)
    monkeypatch.setattr("casemate.api.protocol.ANSWER_SECONDS", 0.7)
    monkeypatch.setattr("casemate.api.protocol.ANSWER_PACE", 1 << 40)
    monkeypatch.setattr("casemate.api.server.HANDSHAKE_SECONDS", 1.0)
    monkeypatch.setattr("casemate.api.server.KEEP_ALIVE", 1)
    monkeypatch.setattr("casemate.api.answers.BODY_SECONDS", 1.0)
    monkeypatch.setattr("casemate.api.answers.BODY_PACE", 1 << 40)
    made = brokers.start(tmp_path)
    yield made
    made.stop()


def plain(service):
    return socket.create_connection(("127.0.0.1", service.broker.settings.port), timeout=20)


def opened(service):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(plain(service))


def ended(peer):
    """Whether the broker ends the connection, whatever it says before."""
    try:
        while peer.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


def drip(peers, data, stop):
    """One byte after the other to each of them, slowly, until the broker has enough."""
    at = 0
    while not stop.wait(0.05):
        for peer in peers:
            try:
                peer.sendall(data[at % len(data) : at % len(data) + 1])
            except OSError:
                pass
        at += 1


def served(service):
    for _ in range(3):
        assert service.call("GET", "/readyz").status == 200


def connections(service):
    return len(service.server.server_state.connections)


def settled(service):
    for _ in range(200):
        if connections(service) == 0 and service.intake.left == service.intake._budget:
            return True
        time.sleep(0.05)
    return False


def slow(service, peers, data):
    stop = threading.Event()
    dripping = threading.Thread(target=drip, args=(peers, data, stop))
    dripping.start()
    try:
        served(service)
        assert all(ended(peer) for peer in peers)
        served(service)
    finally:
        stop.set()
        dripping.join()
        for peer in peers:
            peer.close()
    assert settled(service)


def test_dripping_heads(hurried):
    slow(hurried, [opened(hurried) for _ in range(MANY)], b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 9999)


def test_dripping_bodies(hurried):
    peers = [opened(hurried) for _ in range(MANY)]
    for peer in peers:
        peer.sendall(b"POST /kbs/v0/auth HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n")
    slow(hurried, peers, b" ")


def test_dripping_chunks(hurried):
    peers = [opened(hurried) for _ in range(MANY)]
    for peer in peers:
        peer.sendall(b"POST /kbs/v0/auth HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    slow(hurried, peers, b"1\r\n \r\n")


def test_handshakes_that_never_end(hurried):
    peers = [plain(hurried) for _ in range(MANY)]
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(600)
    slow(hurried, peers, hello)


def test_idle_connections_after_a_request(hurried):
    peers = [opened(hurried) for _ in range(MANY)]
    for peer in peers:
        peer.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
    served(hurried)
    assert all(ended(peer) for peer in peers)
    for peer in peers:
        peer.close()
    assert settled(hurried)


def test_answers_that_nobody_reads(hurried):
    """Requests without end, and not one answer read: the broker stops reading and goes on serving others."""
    peer = opened(hurried)
    peer.settimeout(3)
    sent = 0
    try:
        for _ in range(4000):
            sent += peer.send(b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n" * 20)
    except OSError:
        pass
    served(hurried)
    peer.close()
    assert settled(hurried)
    assert sent < 4000 * 20 * 40


def unread(service, count=8, *, asked=200, buffer=4096):
    """Peers who asked for much, take next to nothing and stay."""
    made = []
    for _ in range(count):
        bare = socket.socket()
        bare.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        bare.connect(("127.0.0.1", service.broker.settings.port))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        peer = context.wrap_socket(bare)
        peer.settimeout(0.2)
        made.append(peer)
        try:
            peer.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n" * asked)
        except OSError:
            pass
    return made


def dropped(service, why):
    text = service.call("GET", "/metrics").body.decode()
    return sum(float(line.split()[1]) for line in text.splitlines() if f'casemate_dropped_total{{why="{why}"}}' in line)


def waiting(service):
    return [one for one in service.server.server_state.connections if one._waiting is not None]


def all_wait(service, count):
    for _ in range(300):
        if len(waiting(service)) == count:
            return
        time.sleep(0.01)
    raise AssertionError("requests are begun whose answers nobody takes")


@pytest.mark.parametrize("trickle", [False, True])
def test_peers_that_stay_and_do_not_read_are_dropped_and_hold_no_place(hurried, monkeypatch, trickle):
    if not trickle:
        monkeypatch.setattr("casemate.api.protocol.ANSWER_SECONDS", 3.0)
    peers, stop = unread(hurried), threading.Event()

    def sip():
        while not stop.wait(0.02):
            for peer in peers:
                try:
                    peer.recv(16)
                except OSError:
                    pass

    sipping = threading.Thread(target=sip)
    if trickle:
        sipping.start()
    else:
        all_wait(hurried, len(peers))  # the next request is not begun
        for one in waiting(hurried):
            assert one.transport.get_write_buffer_size() < (256 << 10)
        assert hurried.app.gate.flight.now == 0
    try:
        served(hurried)
        assert settled(hurried)
    finally:
        stop.set()
        if trickle:
            sipping.join()
    assert dropped(hurried, "unread") == len(peers)
    assert hurried.app.gate.flight.now == 0
    for peer in peers:
        peer.close()


def test_who_reads_late_gets_every_answer(hurried, monkeypatch):
    monkeypatch.setattr("casemate.api.protocol.ANSWER_SECONDS", 30.0)
    (peer,) = unread(hurried, 1, asked=90, buffer=64 << 10)
    all_wait(hurried, 1)
    peer.settimeout(0.5)
    found = b""
    try:
        while piece := peer.recv(1 << 20):
            found += piece
    except OSError:
        pass
    peer.close()
    assert found.count(b"HTTP/1.1 200 OK") == found.count(b"HTTP/1.1 ") == 90
