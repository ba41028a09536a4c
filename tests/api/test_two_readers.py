"""Two readers of the same bytes: what our protocol takes for a request, h11 takes for the same one."""

import asyncio
import itertools

import h11
import uvicorn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from uvicorn.server import ServerState

from casemate.api.protocol import Protocol


def mostly(good, bad):
    """One of the good ones, and now and then a bad one."""
    return st.integers(0, 24).flatmap(lambda n: st.sampled_from(bad if n == 24 else good))


CRLF = mostly([b"\r\n"], [b"\n", b"\r", b"\n\r", b"\r\r\n", b""])
METHODS = mostly([b"POST", b"GET"], [b"DELETE", b"OPTIONS", b"get", b"FOO", b"CONNECT", b"", b"GE T"])
TARGETS = mostly([b"/", b"/a?b=c"], [b"/%00", b"*", b"http://a/b", b"/a#b", b"/a b", b"/\xff", b"", b"//a", b"/?b?c"])
VERSIONS = mostly([b"HTTP/1.1"], [b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/0.9", b"http/1.1", b""])
HOSTS = mostly([b"Host: a\r\n"], [b"", b"Host: a\r\nHost: a\r\n", b"Host:\r\n", b"Host : a\r\n"])
NAMES = mostly(
    [b"X", b"Cookie", b"Expect"],
    [b"Content-Length", b"Transfer-Encoding", b"Connection", b"Upgrade", b"X ", b" X", b"", b"X\0", b"X_Y", b"X-\xff"],
)
VALUES = mostly(
    [b"a", b"", b"a\tb", b"\t5\t", b"\xff"],
    [b"5", b"chunked", b"close", b"keep-alive", b"upgrade", b"h2c", b"a\0b", b"a\rb", b"a\x7fb", b"100-continue"],
)
FIELDS = st.lists(st.builds(lambda *parts: b"".join(parts), NAMES, mostly([b": "], [b":", b" :", b""]), VALUES, CRLF))
LENGTHS = mostly(
    [b"5"], [b"5, 5", b"+5", b"5 ", b"0x5", b"-1", b"", b"05", b"5;5", b"\x0b5", b"99999999999999999999", b"6"]
)
CODINGS = mostly(
    [b"chunked"], [b"Chunked", b"chunked, chunked", b"gzip, chunked", b"identity", b"\x0bchunked", b"xchunked"]
)
CHUNKS = mostly(
    [b"5\r\nhello\r\n", b"3;a=b\r\nabc\r\n"],
    [
        b"5\nhello\r\n",
        b"05\r\nhello\r\n",
        b"5 \r\nhello\r\n",
        b"+5\r\nhello\r\n",
        b"5\r\nhelloX\r\n",
        b"5;\n\r\nhello\r\n",
    ],
)
LASTS = mostly(
    [b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n", b"0\r\nHost: b\r\n\r\n"],
    [b"0\r\nContent-Length: 5\r\n\r\n", b"0\n\n", b"0\r\n\n", b"0\r\n X: y\r\n\r\n", b"00\r\n\r\n", b""],
)


@st.composite
def requests(draw):
    """Bytes that are a request, or nearly one."""
    head = b" ".join([draw(METHODS), draw(TARGETS), draw(VERSIONS)]) + draw(CRLF) + draw(HOSTS)
    kind = draw(st.integers(0, 12))
    body = b""
    if kind in (1, 3, 4, 12):
        head, body = head + b"Content-Length: " + draw(LENGTHS) + draw(CRLF), b"hello"
    if kind in (2, 5, 6, 12):
        head += b"Transfer-Encoding: " + draw(CODINGS) + draw(CRLF)
        body = b"".join(draw(st.lists(CHUNKS, max_size=3))) + draw(LASTS)
    return head + b"".join(draw(FIELDS)[:4]) + draw(CRLF) + body


class Transport(asyncio.Transport):
    def __init__(self):
        super().__init__()
        self.closed, self.said = False, b""

    def is_closing(self):
        return self.closed

    def close(self):
        self.closed = True

    abort = close

    def write(self, data):
        self.said += data

    def pause_reading(self):
        pass

    resume_reading = pause_reading

    def set_write_buffer_limits(self, high=None, low=None):
        pass

    def get_write_buffer_size(self):
        return 0


async def ours(pieces):
    """The requests that reach the application whole, by our protocol."""
    told = []

    async def app(scope, receive, send):
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return
            body, more = body + message["body"], message["more_body"]
        query = scope["query_string"]
        target = scope["raw_path"] + (b"?" + query if query else b"")
        told.append((scope["method"].encode(), target, scope["headers"], body))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    config = uvicorn.Config(app, http=Protocol, ws="none", lifespan="off", log_config=None)
    config.load()
    transport, made = Transport(), Protocol(config, ServerState(), {}, asyncio.get_running_loop())
    made.connection_made(transport)
    for piece in pieces:
        made.data_received(piece)
        for _ in range(40):
            await asyncio.sleep(0)
    made.connection_lost(None)
    for _ in range(5):
        await asyncio.sleep(0)
    return told


def theirs(data):
    """The same, by h11."""
    told, reader = [], h11.Connection(h11.SERVER)
    reader.receive_data(data)
    try:
        asked, body = None, b""
        while True:
            event = reader.next_event()
            if isinstance(event, h11.Request):
                asked, body = event, b""
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                told.append((asked.method, asked.target, [(bytes(n), bytes(v)) for n, v in asked.headers], body))
                reader.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                reader.send(h11.EndOfMessage())
                reader.start_next_cycle()
            else:
                return told
    except (h11.RemoteProtocolError, h11.LocalProtocolError):
        return told


def alike(request):
    """h11 tells one coding in small letters; a target in absolute form is its path to us."""
    method, target, headers, body = request
    return method, target.removeprefix(b"http://a"), [(n, v.lower()) for n, v in headers], body


@given(st.lists(requests(), min_size=1, max_size=3).map(b"".join), st.lists(st.integers(0, 400), max_size=6))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_two_readers_agree(data, cuts):
    at = [0, *sorted(cut for cut in set(cuts) if cut < len(data)), len(data)]
    whole = asyncio.run(ours([data]))
    cut = asyncio.run(ours([data[a:b] for a, b in itertools.pairwise(at)]))
    assert cut == whole
    other = [alike(one) for one in theirs(data)]
    assert [alike(one) for one in whole] == other[: len(whole)]
