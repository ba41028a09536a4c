"""HTTP/1.1 on one connection: llhttp's parser, strict, and with the bounds that a parser in C leaves to others.

A connection costs memory and one of `connections`, so it has to be used: each request's head and the pause between two
requests have their time, a head and what frames a body have their bytes, and one peer gets a share of all connections.
Bytes that could be read in two ways are never read (RFC 9112 sections 6.1 and 11.2), and while a request is being
answered nothing of the next one is parsed.

An answer goes to the transport whole, so its request is over however long the peer takes to read it; but the next one
is not begun before, what was written is bounded, and taking it has its time too, by its size.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from casemate.api import clients, peers
from casemate.api.gate import MAX_HEAD

HEAD_SECONDS = 15.0  # from the handshake, or from a later request's first byte, to the head's end
ANSWER_SECONDS = 30.0  # for the peer to take what it was answered, and for each ANSWER_PACE bytes of that one more
ANSWER_PACE = 128 << 10
UNREAD = 32 << 10  # bytes that wait in the transport (beside its own 64 KiB) from which nothing new is answered
MAX_FRAMING = 64 << 10  # bytes of chunk sizes, their extensions and trailers, beside FRAMING for each byte of a body
FRAMING = 8
_GOODBYE_SECONDS = 0.3
_PIECE = 4 << 10  # read at a time: what stands in one piece behind a request may be parsed before its answer
_MAX_KEPT = 1 << 20
_WHY = {400: "unreadable", 431: "head"}
_SAID = {
    400: b"the request cannot be read",
    431: b"the head of the request is too long",
}


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol on httptools; drops a peer who is silent where a head is due, or has too many connections.

    And a peer that keeps an idle TLS connection open does not hold up the end of the server.
    """

    peer = ""
    most = 1000  # connections of the whole process
    dropped: Callable[[str], None] = staticmethod(lambda why: None)  # who counts; `why` is a constant of ours
    _unread: asyncio.TimerHandle | None = None
    _waiting: tuple[RequestResponseCycle, Any] | None = None  # the next request, while answers are not taken
    _written = 0  # bytes of the last answer's body
    _before = 0  # and of the one before
    _timer: asyncio.TimerHandle | None = None
    _kept = b""  # came while a request was being answered
    _head = 0  # bytes of the head that is being read, by the pieces that held some of it
    _framing = 0  # bytes that a body took beside itself, less what it may take
    _in_head = True
    _over = False  # nothing more is read
    _hosts = 0

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.parser = httptools.HttpRequestParser(self)  # without the leniency that uvicorn's has

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn does
        """Count the connection for its peer and wait for a request."""
        super().connection_made(transport)
        self.flow = _Flow(transport)
        transport.set_write_buffer_limits(high=UNREAD)
        self.app_state = {**self.app_state, **clients.shown(transport)}
        self.peer = peers.peer(self.client[0] if self.client else None)
        own = sum(getattr(other, "peer", "") == self.peer for other in self.connections)
        if own > peers.share(self.peer, self.most) or len(self.connections) > self.most:
            self.dropped("connections")
            transport.abort()
            return
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Read on; between two requests a byte begins a head."""
        if self._over or self.parser is None or self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        if not self._busy() and self._timer is None:
            self._await_head()
        self._read(self._kept + data if self._kept else data)
        if self._busy():
            self._stop_waiting()

    def _read(self, data: bytes) -> None:
        """Parse until a request is complete that was not answered yet; the rest waits for its answer."""
        self._kept, at = b"", 0
        while at < len(data):
            if self._busy() and not self.cycle.more_body:
                self._kept = data[at:]
                self.flow.pause_reading()
                if len(self._kept) > _MAX_KEPT:
                    self.transport.abort()
                return
            piece = data[at : at + _PIECE]
            at += len(piece)
            try:
                self._feed(piece)
            except httptools.HttpParserUpgrade:
                self._refuse(400)
                return
            except httptools.HttpParserError as error:
                too_long = any(isinstance(one, _TooLong) for one in (error, error.__context__))
                self._refuse(431 if too_long else 400)
                return

    def _feed(self, piece: bytes) -> None:
        if self._in_head:
            self._head += len(piece)
        else:
            self._framing += len(piece)
        self.parser.feed_data(piece)
        if self._in_head and self._head > MAX_HEAD + _PIECE:
            raise _TooLong
        if self._framing > MAX_FRAMING:
            raise _Ambiguous

    def _refuse(self, status: int) -> None:
        """Say why and close; a request before this one still gets its answer."""
        self.dropped(_WHY[status])
        if self._busy() and not self.cycle.more_body:
            self.cycle.keep_alive, self._over = False, True
            self.flow.pause_reading()
            return
        if self._busy() and (self.pipeline or self.cycle.response_started):  # that would not be understood as its own
            self.transport.abort()
            return
        said = _SAID[status]
        head = b"content-type: text/plain; charset=utf-8\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(said)
        self.transport.write(STATUS_LINE[status] + head + said)
        self.transport.close()
        self.loop.call_later(_GOODBYE_SECONDS, self.transport.abort)

    def on_message_begin(self) -> None:
        """Between two requests: count anew."""
        super().on_message_begin()
        self._in_head, self._hosts, self._framing = True, 0, 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head; of trailers nothing is kept."""
        if not self._in_head:
            return
        name, value = name.lower(), value.strip(b" \t")
        if name == b"host":
            self._hosts += 1
        elif name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        elif name == b"transfer-encoding" and value.lower() != b"chunked":
            raise _Ambiguous
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head's end: what llhttp lets pass and we do not."""
        version = self.parser.get_http_version()
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > MAX_HEAD:
            raise _TooLong
        chunked = any(name == b"transfer-encoding" for name, _ in self.headers)
        if version not in ("1.0", "1.1") or (version == "1.0" and chunked):
            raise _Ambiguous
        if self._hosts > 1 or (version == "1.1" and not self._hosts) or b"#" in self.url:
            raise _Ambiguous
        if self.parser.should_upgrade():  # CONNECT too: what follows would be no HTTP
            raise _Ambiguous
        super().on_headers_complete()
        self._in_head, self._head = False, 0

    def on_body(self, body: bytes) -> None:
        """A piece of a body, whose bytes are no framing."""
        self._framing -= len(body) * (1 + FRAMING)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The end of a request."""
        super().on_message_complete()
        self._in_head, self._framing = True, 0

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if self.flow.write_paused:
            self._waiting = cycle, app
            return
        self._before, self._written = self._written, 0

        async def carried(scope: Any, receive: Any, send: Any) -> None:
            async def counted(message: Any) -> None:
                self._written += len(message.get("body", b""))
                await send(message)

            try:
                await app(scope, receive, counted)
            except asyncio.CancelledError:  # an answer that uvicorn makes up might say less than what was decided
                cycle.disconnected = True
                self.transport.abort()

        super()._start_asgi_task(cycle, carried)

    def on_response_complete(self) -> None:
        """The next request, if it waits."""
        super().on_response_complete()
        if self.flow.write_paused:
            self._await_reader()  # its size is known now
        if self._kept and not self.pipeline and not self._busy():
            self.data_received(b"")

    def pause_writing(self) -> None:
        """The peer takes less than it asks for: that has its time."""
        super().pause_writing()
        self._await_reader()

    def resume_writing(self) -> None:
        """It took enough; the request that waited for that begins."""
        super().resume_writing()
        self._forget_reader()
        if self._waiting is not None:
            (cycle, app), self._waiting = self._waiting, None
            self._start_asgi_task(cycle, app)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers and what nobody will read."""
        self._stop_waiting()
        self._forget_reader()
        self._waiting = None
        self._kept = b""
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Close when idle; TLS would wait half a minute for the peer to say goodbye."""
        super().shutdown()
        if not self._busy():
            self.loop.call_later(_GOODBYE_SECONDS, self.transport.abort)

    def _busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _await_head(self) -> None:
        self._timer = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _await_reader(self) -> None:
        self._forget_reader()
        seconds = ANSWER_SECONDS + (self._before + self._written) / ANSWER_PACE
        self._unread = self.loop.call_later(seconds, self._not_read)

    def _not_read(self) -> None:
        self.dropped("unread")
        self.transport.abort()

    def _forget_reader(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Flow(FlowControl):
    """No answer waits for its reader: it is whole in memory anyway, and its request would keep its place."""

    async def drain(self) -> None:
        """At once."""


class _Ambiguous(httptools.HttpParserError):
    """A request that somebody before or behind us may read in another way."""


class _TooLong(httptools.HttpParserError):
    """A head beyond its bound."""
