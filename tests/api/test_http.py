"""HTTP/1.1 by llhttp: nothing that two readers might read differently, and bounds that the parser does not have."""

import socket
import ssl

import pytest
from starlette.routing import Match, Route

from casemate.api import gate, protocol
from casemate.api.application import Direct

POST = b"POST /kbs/v0/auth HTTP/1.1\r\nHost: a\r\n"
GET = b"GET /healthz HTTP/1.1\r\nHost: a\r\n"
GOOD = b'{"version":"0.4.0","tee":"tpm","extra-params":{}}'
HIDDEN = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"  # what a smuggler hopes will be read as a request


def opened(service):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    plain = socket.create_connection(("127.0.0.1", service.broker.settings.port), timeout=10)
    return context.wrap_socket(plain)


def raw(service, *data):
    """All that the broker says until it ends the connection, or says no more."""
    with opened(service) as peer:
        found = b""
        try:
            for piece in data:
                peer.sendall(piece)
            peer.settimeout(1)
            while piece := peer.recv(65536):
                found += piece
        except OSError:
            pass
        return found


def statuses(answer):
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]


def chunked(*pieces):
    return POST + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + b"".join(pieces)


@pytest.mark.parametrize(
    "data",
    [
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: identity\r\n\r\n",
        POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
        b"POST /kbs/v0/auth HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        POST + b"Content-Length: 1, 1\r\n\r\nx",
        POST + b"Content-Length: +1\r\n\r\nx",
        POST + b"Content-Length: 0x1\r\n\r\nx",
        POST + b"Content-Length: 1 1\r\n\r\nx",
        POST + b"Content-Length: \r\n\r\nx",
        POST + b"Content-Length: 99999999999999999999999\r\n\r\nx",
        POST + b"Content-Length : 1\r\n\r\nx",
        b"GET /healthz HTTP/1.1\nHost: a\n\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\rX: y\r\n\r\n",
        GET + b"\n",
        GET + b"X: y\r\n z\r\n\r\n",
        GET + b"X: a\0b\r\n\r\n",
        GET + b": y\r\n\r\n",
        GET + b"X y: z\r\n\r\n",
        GET + b"Host: b\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n Host: a\r\n\r\n",
        b"GET /healthz\r\n\r\n",
        b"GET /healthz HTTP/1.2\r\nHost: a\r\n\r\n",
        b"GET /healthz HTTP/2.0\r\nHost: a\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /health#z HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /health z HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /health\xffz HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
        GET + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        POST + b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 1\r\n\r\nx",
        chunked(b"1\nx\r\n0\r\n\r\n"),
        chunked(b"1;a=\nb\r\nx\r\n0\r\n\r\n"),
        chunked(b"1 \r\nx\r\n0\r\n\r\n"),
        chunked(b"0x1\r\nx\r\n0\r\n\r\n"),
        chunked(b"-1\r\nx\r\n0\r\n\r\n"),
        chunked(b"fffffffffffffffff\r\nx\r\n"),
        chunked(b"1\r\nxx\r\n0\r\n\r\n"),
        chunked(b"1\r\nx\n0\r\n\r\n"),
        chunked(b"0\r\nContent-Length: 3\r\n\r\n"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused_and_the_connection_ends(service, data):
    told = raw(service, data, HIDDEN)
    assert statuses(told) == [400], told
    assert b"connection: close" in told
    assert service.call("GET", "/healthz").status == 200


def test_trailers_and_extensions_are_read_past(service):
    guest = raw(service, chunked(b"%x;a=b\r\n%s\r\n0\r\nCookie: kbs-session-id=x\r\nX: y\r\n\r\n" % (len(GOOD), GOOD)))
    assert statuses(guest) == [200]


def test_a_trailer_is_no_field_of_a_head(service):
    """Neither of this request's nor of the next one's: an admin's route stays closed."""
    token = service.admin.token().encode()
    asked = b"POST /casemate/v0/admin/apps HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    trailer = b"2\r\n{}\r\n0\r\nAuthorization: Bearer " + token + b"\r\n\r\n"
    follows = b"GET /casemate/v0/admin/apps HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    assert statuses(raw(service, asked + trailer + follows)) == [401, 401]


@pytest.mark.parametrize(
    "framing",
    [
        [b"1;" + b"a" * 300_000 + b"\r\nx\r\n0\r\n\r\n"],
        [b"1;" + b"a" * 1000 + b"\r\nx\r\n"] * 300,
        [b"0\r\nX: " + b"a" * 300_000 + b"\r\n\r\n"],
        [b"0\r\n" + b"X: y\r\n" * 50_000 + b"\r\n"],
    ],
)
def test_what_frames_a_body_is_bounded(service, framing):
    assert statuses(raw(service, chunked(*framing))) in ([400], [])


def test_many_small_chunks_are_a_body(service):
    pieces = [b"1\r\n%c\r\n" % byte for byte in GOOD + b" " * 50_000]
    assert statuses(raw(service, chunked(*pieces, b"0\r\n\r\n"))) == [200]


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * 300_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        GET + b"X: " + b"a" * 300_000 + b"\r\n\r\n",
        GET + b"X" * 300_000 + b": a\r\n\r\n",
        GET + b"X: y\r\n" * 60_000 + b"\r\n",
        b"\r\n" * 200_000 + GET + b"\r\n",
    ],
)
def test_a_head_is_bounded_in_all_its_parts(service, head):
    assert statuses(raw(service, head)) in ([431], [])
    assert service.call("GET", "/healthz").status == 200


def test_blanks_around_a_value_are_none_of_it(service):
    assert statuses(
        raw(service, POST + b"Content-Length: \t%d \t\r\nConnection: close\r\n\r\n" % len(GOOD) + GOOD)
    ) in (
        [200],
        [400],
    )
    token = service.admin.token().encode()
    asked = b"GET /casemate/v0/admin/apps HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization:\tBearer "
    assert statuses(raw(service, asked + token + b"\t \r\n\r\n")) == [200]


def test_requests_that_follow_at_once_are_answered_in_turn(service):
    first = POST + b"Content-Length: %d\r\n\r\n" % len(GOOD) + GOOD
    told = raw(service, (first + HIDDEN) * 40 + GET + b"Connection: close\r\n\r\n")
    assert statuses(told) == [200, 200] * 40 + [200]
    nonces = told.count(b'"nonce"')
    assert nonces == 40


def test_while_an_answer_is_due_no_more_than_a_piece_is_parsed(service):
    seen = []

    class Watched(protocol.Protocol):
        def on_message_begin(self):
            seen.append(len(self.pipeline))
            super().on_message_begin()

    kind = service.server.config.http_protocol_class
    service.server.config.http_protocol_class = type("Watched", (Watched,), {"most": kind.most})
    try:
        told = raw(service, HIDDEN * 8000 + GET + b"Connection: close\r\n\r\n")
    finally:
        service.server.config.http_protocol_class = kind
    assert statuses(told) == [200] * 8001
    assert max(seen) <= protocol._PIECE // len(HIDDEN) + 1


def test_garbage_behind_a_request_does_not_become_its_answer(service):
    slow = POST + b"Content-Length: %d\r\n\r\n" % len(GOOD) + GOOD
    told = raw(service, slow + b"\x00garbage\r\n\r\n")
    assert statuses(told) in ([200], [200, 400])


def test_a_body_that_goes_wrong_ends_what_it_belongs_to(service):
    wrong = POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"
    assert statuses(raw(service, wrong)) == [400]
    assert statuses(raw(service, HIDDEN + wrong)) in ([200, 400], [200], [])
    assert service.call("GET", "/healthz").status == 200


def test_after_the_last_request_nothing_is_read(service):
    assert statuses(raw(service, GET + b"Connection: close\r\n\r\n" + HIDDEN * 3)) == [200]


def test_a_body_is_asked_for_before_it_is_sent(service):
    with opened(service) as peer:
        peer.sendall(POST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(GOOD))
        assert peer.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        peer.sendall(GOOD)
        assert peer.recv(65536).startswith(b"HTTP/1.1 200")


def test_old_clients_get_their_answer_and_the_end(service):
    told = raw(service, b"GET /healthz HTTP/1.0\r\n\r\n")
    assert statuses(told) == [200]
    assert b"connection: close" in told


def test_routes_without_the_router_are_those_that_it_would_choose(service):
    """`Direct` and the router agree on each of its routes, for every method."""
    direct = Direct(None, service.app.routes)
    paths = {path for _, path in direct._exact} | {
        "/kbs/v0/resource/a/b/c",
        "/kbs/v0/resource/a/b",
        "/kbs/v0/resource/",
    }
    for path in paths:
        for method in ("GET", "HEAD", "POST", "PUT", "DELETE"):
            scope = {"type": "http", "method": method, "path": path}
            whole = (r for r in service.app.routes if isinstance(r, Route) and r.matches(dict(scope))[0] is Match.FULL)
            found = direct._found(scope)
            chosen = next(whole, None)
            assert found is chosen, (method, path)
            if chosen is not None:
                assert scope["path_params"] == chosen.matches(dict(scope))[1]["path_params"]


def test_what_is_refused_unread_is_counted_always_and_logged_seldom(service, caplog):
    caplog.set_level("INFO", logger="casemate.api")

    def count(why):
        lines = service.call("GET", "/metrics").body.decode().splitlines()
        return sum(
            float(line.split()[1]) for line in lines if line.startswith(f'casemate_dropped_total{{why="{why}"}}')
        )

    before, long = count("unreadable"), count("head")
    many = gate.LINES * 4
    for _ in range(many):
        assert statuses(raw(service, b"GET /secret HTTP/1.1\r\n\r\n")) == [400]
    assert statuses(raw(service, GET + b"X: " + b"y" * (protocol.MAX_HEAD + 8192))) in ([431], [400], [])
    assert count("unreadable") - before >= many
    assert count("unreadable") + count("head") - before - long == many + 1
    lines = [one.fields for one in caplog.records if one.message == "dropped"]
    assert lines[0]["why"] == "unreadable"
    assert "secret" not in repr(lines)


def test_lines_on_what_is_dropped_are_bounded(service, caplog, monkeypatch):
    caplog.set_level("INFO", logger="casemate.api")
    now = [0.0]
    made = gate.Gate(service.broker.settings, service.app.state.metrics)
    made._lines._clock = lambda: now[0]
    for _ in range(100):
        made.dropped("unreadable")
    now[0] += 1
    made.dropped("head")
    lines = [one.fields for one in caplog.records if one.message == "dropped"]
    assert len(lines) == gate.LINES + 1
    assert lines[-1] == {"why": "head", "unsaid": 100 - gate.LINES}
