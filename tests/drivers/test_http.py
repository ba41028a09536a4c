"""The HTTP client against real sockets: pins, bounds, early ends, kept connections."""

import socket
import ssl
import threading
from contextlib import contextmanager

import pytest

from casemate.crypto import pins
from casemate.drivers import http
from casemate.errors import Refused, Unavailable, Unusable

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """(path of certificate and key in one PEM, pin)."""
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path, pins.certificate_pin(made.public_bytes(serialization.Encoding.DER))


@contextmanager
def server(handle, *, tls=None, connections=1):
    """A listener whose `handle(socket, number)` runs for each connection; yields its port and what it received."""
    listener = socket.create_server(("127.0.0.1", 0))
    received = []

    def serve():
        for number in range(connections):
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            try:
                if tls:
                    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                    context.load_cert_chain(tls)
                    peer = context.wrap_socket(peer, server_side=True)
                with peer:
                    handle(peer, number, received)
            except OSError:
                continue

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1], received
    finally:
        listener.close()
        thread.join(5)


def head(peer):
    data = b""
    while b"\r\n\r\n" not in data:
        piece = peer.recv(65536)
        if not piece:
            break
        data += piece
    return data


def answer(data):
    def handle(peer, _, received):
        received.append(head(peer))
        peer.sendall(data)

    return handle


def get(port, **options):
    return http.request("GET", f"http://127.0.0.1:{port}/x?y=1", insecure=True, timeout=5, **options)


def test_a_plain_exchange():
    with server(answer(OK)) as (port, received):
        got = get(port, headers={"X-A": "b"})
    assert (got.status, got.body) == (200, b"hello")
    assert received[0].startswith(b"GET /x?y=1 HTTP/1.1\r\n")
    assert b"X-A: b\r\n" in received[0]


def test_plain_http_must_be_asked_for():
    with pytest.raises(Unusable, match="not encrypted"):
        http.request("GET", "http://127.0.0.1:1/")


@pytest.mark.parametrize("url", ["", "ftp://a/", "https://", "https://user:pw@a/", "https://a:notaport/"])
def test_other_urls_are_unusable(url):
    with pytest.raises(Unusable):
        http.request("GET", url)


def test_the_pin_is_checked_before_a_byte_is_sent(certificate):
    path, pin = certificate
    with server(answer(OK), tls=path) as (port, received):
        assert http.request("GET", f"https://127.0.0.1:{port}/", pin=pin).body == b"hello"
        assert len(received) == 1
    with server(answer(OK), tls=path) as (port, received):
        other = "sha256:" + "0" * 64
        with pytest.raises(Refused) as refusal:
            http.request("POST", f"https://127.0.0.1:{port}/", pin=other, body=b"secret")
    assert refusal.value.findings[0].rule == "tls.pin"
    assert received in ([], [b""])


def test_without_a_pin_a_self_signed_key_is_not_believed(certificate):
    path, _ = certificate
    with server(answer(OK), tls=path) as (port, _), pytest.raises(Unavailable, match="TLS"):
        http.request("GET", f"https://127.0.0.1:{port}/")


def test_nobody_there():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(Unavailable, match="refused the connection"):
        get(port)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "without an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", "early"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", "early"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", "announces"),
        (b"SSH-2.0-OpenSSH\r\n", "does not answer in HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70000 + b"\r\n\r\n", "does not answer in HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 200 + b"\r\n", "does not answer in HTTP"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"a" * 2000, "more than 1000 bytes"),
    ],
)
def test_answers_that_lie(data, sentence):
    with server(answer(data)) as (port, _), pytest.raises(Unavailable, match=sentence):
        get(port, limit=1000)


def test_a_drip_of_bytes_ends_at_the_total_time():
    stop = threading.Event()

    def drip(peer, _, received):
        head(peer)
        peer.sendall(b"HTTP/1.1 200 OK\r\n")
        while not stop.wait(0.05):
            peer.sendall(b"X: a\r\n")

    with server(drip) as (port, _):
        with pytest.raises(Unavailable, match=r"in time|does not answer"):
            get(port, total=0.4)
        stop.set()


def test_a_body_in_pieces():
    def echo(peer, _, received):
        data = head(peer)
        while not data.endswith(b"cd"):
            data += peer.recv(100)
        received.append(data)
        peer.sendall(OK)

    with server(echo) as (port, received):
        http.request(
            "PUT",
            f"http://127.0.0.1:{port}/",
            insecure=True,
            body=iter([b"ab", b"cd"]),
            headers={"Content-Length": "4"},
        )
    assert received[0].endswith(b"\r\n\r\nabcd")


def test_an_answer_before_the_body_was_read():
    def refuse(peer, _, received):
        head(peer)
        peer.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
        peer.shutdown(socket.SHUT_WR)
        while peer.recv(1 << 20):
            pass

    with server(refuse) as (port, _):
        got = http.request("POST", f"http://127.0.0.1:{port}/", insecure=True, body=b"x" * (4 << 20))
    assert (got.status, got.body) == (413, b"no")


def test_a_kept_connection_is_used_again_and_replaced_when_the_peer_closed_it():
    def twice(peer, number, received):
        for _ in range(2 if number == 0 else 1):
            received.append((number, head(peer)))
            peer.sendall(OK)

    with server(twice, connections=2) as (port, received):
        with http.Connection(f"http://127.0.0.1:{port}", insecure=True) as connection:
            for _ in range(3):
                assert connection.request("GET", "/").body == b"hello"
    assert [number for number, _ in received] == [0, 0, 1]


def test_streaming():
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + b"z" * 300000
    with server(answer(data)) as (port, _):
        with http.stream("GET", f"http://127.0.0.1:{port}/", insecure=True) as got:
            assert got.status == 200
            assert sum(len(piece) for piece in got.chunks()) == 300000


def test_a_line_break_in_a_header_or_path_is_not_sent():
    with server(answer(OK)) as (port, _):
        with pytest.raises(Unusable):
            get(port, headers={"A": "b\r\nC: d"})
        with pytest.raises(Unusable):
            http.request("GET", f"http://127.0.0.1:{port}/a b", insecure=True)


def test_retrying_is_bounded_and_backs_off():
    waits, calls = [], []

    def call():
        calls.append(1)
        raise Unavailable("no")

    with pytest.raises(Unavailable):
        http.retrying(call, attempts=4, backoff=1, sleep=waits.append)
    assert len(calls) == 4
    assert len(waits) == 3
    assert all(low <= wait <= high for wait, (low, high) in zip(waits, [(0.5, 1), (1, 2), (2, 4)], strict=True))


def test_retrying_does_not_repeat_a_refusal():
    calls = []

    def call():
        calls.append(1)
        raise Refused.because("a.b", expected=1, found=2)

    with pytest.raises(Refused):
        http.retrying(call, sleep=lambda _: None)
    assert len(calls) == 1
