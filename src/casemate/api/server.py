"""The server: uvicorn on the broker's own key, TLS 1.3 only, a graceful end on SIGTERM.

A connection costs memory and one of `connections`, so it has to be used: the TLS handshake, each request's head and the
pause between two requests have their time, and one peer gets a share of all connections.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import ssl
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from casemate.api import peers
from casemate.api.application import MAX_HEAD, app
from casemate.api.logs import log_to
from casemate.broker.assemble import TLS_CERTIFICATE, TLS_KEY
from casemate.errors import Unusable

if TYPE_CHECKING:
    from casemate.broker.assemble import Broker

__all__ = ["log_to", "serve", "server"]

HANDSHAKE_SECONDS = 15.0
HEAD_SECONDS = 15.0  # from the handshake, or from a later request's first byte, to the head's end
KEEP_ALIVE = 30
_GOODBYE_SECONDS = 0.3
_LOG = logging.getLogger("casemate.api")


def serve(broker: Broker) -> None:
    """Serve until SIGTERM or SIGINT; open requests get `drain_seconds`."""
    running = server(broker)

    def stop(*_: object) -> None:
        running.should_exit = True

    # uvicorn raises the signal again when it is done, for whoever handled it before: that is us, and the end is 0.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    try:
        running.run()
    except SystemExit as ended:  # uvicorn's way to say that it could not begin
        where = f"{broker.settings.host}:{broker.settings.port}"
        raise Unusable(f"the broker can't listen on {where}", hint="another program has that port") from ended
    finally:
        broker.close()


def server(broker: Broker) -> uvicorn.Server:
    """A server that was not started yet."""
    settings = broker.settings
    config = uvicorn.Config(
        app(broker),
        host=settings.host,
        port=settings.port,
        http=_Protocol,
        ws="none",
        loop="casemate.api.server:Loop",
        h11_max_incomplete_event_size=MAX_HEAD,
        limit_concurrency=settings.connections,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=settings.drain_seconds,
        ssl_certfile=str(settings.folder / TLS_CERTIFICATE),
        ssl_keyfile=str(settings.folder / TLS_KEY),
        ssl_context_factory=_tls,
        server_header=False,
        proxy_headers=False,
        access_log=False,
        log_config=None,
    )
    return uvicorn.Server(config)


class Loop(asyncio.SelectorEventLoop):
    """asyncio's loop, with less patience for TLS handshakes: until they are done no protocol sees the connection."""

    async def create_server(self, *args: Any, **options: Any) -> Any:
        """As asyncio's."""
        if options.get("ssl") is not None:
            options.setdefault("ssl_handshake_timeout", HANDSHAKE_SECONDS)
        return await super().create_server(*args, **options)


class _Protocol(H11Protocol):
    """h11 that drops a peer who is silent where a request's head is due, or who has too many connections.

    And a peer that keeps an idle TLS connection open does not hold up the end of the server.
    """

    peer = ""
    _head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn does
        """Count the connection for its peer and wait for a request."""
        super().connection_made(transport)
        self.peer = peers.peer(self.client[0] if self.client else None)
        most = self.limit_concurrency or 0
        if sum(getattr(other, "peer", "") == self.peer for other in self.connections) > peers.share(self.peer, most):
            transport.abort()
            return
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Read on; between two requests a byte begins a head."""
        if not self._busy() and self._head is None:
            self._await_head()
        super().data_received(data)
        if self._busy():
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _await_head(self) -> None:
        self._head = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def shutdown(self) -> None:
        """Close when idle; asyncio would wait half a minute for the peer to say goodbye."""
        super().shutdown()
        if self.cycle is None or self.cycle.response_complete:
            self.loop.call_later(_GOODBYE_SECONDS, self.transport.abort)


def _tls(config: uvicorn.Config, default: Any) -> ssl.SSLContext:
    context: ssl.SSLContext = default()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context
