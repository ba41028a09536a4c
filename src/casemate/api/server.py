"""The server: uvicorn on the broker's own key, TLS 1.3 unless the operator allows 1.2, a graceful end on SIGTERM.

What a connection may do and how long it may take for it is told in `casemate.api.protocol`.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
import ssl
import threading
from typing import TYPE_CHECKING, Any

import uvicorn
import uvloop

from casemate.api import clients
from casemate.api.application import app
from casemate.api.logs import log_to
from casemate.api.protocol import Protocol
from casemate.broker import trust
from casemate.broker.assemble import TLS_CERTIFICATE, TLS_KEY
from casemate.errors import Unusable

if TYPE_CHECKING:
    from casemate.broker.assemble import Broker
    from casemate.broker.settings import Settings

__all__ = ["log_to", "serve", "server"]

HANDSHAKE_SECONDS = 15.0
KEEP_ALIVE = 30
GROUPS = "X25519MLKEM768:X25519:prime256v1"
_LOG = logging.getLogger("casemate.api")
_HINTS = {
    errno.EADDRINUSE: "another program has that port",
    errno.EADDRNOTAVAIL: "no interface of this machine has that address",
    errno.EACCES: "ports below 1024 need CAP_NET_BIND_SERVICE; choose another `port`",
    errno.EPERM: "this process is not allowed to listen there",
    errno.EAFNOSUPPORT: "this machine has no addresses of that kind",
}


def serve(broker: Broker, *, worker: bool = False) -> None:
    """Serve until SIGTERM or SIGINT; open requests get `drain_seconds`, then what waits for the log is written.

    A `worker` shares its port with others, and ends when its standard input does: the process that started it is gone.
    """
    running = server(broker)

    def stop(*_: object) -> None:
        running.should_exit = True

    if worker:
        threading.Thread(target=lambda: stop(os.read(0, 1)), name="casemate parent", daemon=True).start()

    # uvicorn raises the signal again when it is done, for whoever handled it before: that is us, and the end is 0.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    try:
        running.run(sockets=[listening(broker.settings, shared=True)] if worker else None)
    except (SystemExit, OSError) as ended:  # uvicorn's way to say that it could not begin
        if running.started:
            raise
        raise cannot_listen(broker.settings, ended) from ended
    finally:
        broker.close()
        _LOG.info("stopped")


def cannot_listen(settings: Settings, ended: BaseException) -> Unusable:
    """Why nothing could be bound: what `ended`, or the error that it came from, says."""
    reason: BaseException | None = ended
    while reason is not None and not isinstance(reason, OSError):
        reason = reason.__cause__ or reason.__context__
    if reason is None:
        return Unusable("the broker can't start", hint="the log tells more")
    if isinstance(reason, socket.gaierror):
        told, hint = "no such host", "`host` in broker.toml is an address of this machine, or a name of one"
    else:
        number = reason.errno or 0
        told, hint = os.strerror(number) if number else "it can't be bound", _HINTS.get(number, "")
    where = f"{settings.host}:{settings.port}"
    return Unusable(f"the broker can't listen on {where}: {told}", hint=hint)


def listening(settings: Settings, *, shared: bool) -> socket.socket:
    """The bound socket; with `shared` other processes of ours may bind the same port, and the kernel deals out."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        made.bind((settings.host, settings.port))
    except OSError:
        made.close()
        raise
    return made


def server(broker: Broker) -> uvicorn.Server:
    """A server that was not started yet; what its settings judge more strictly than before takes effect now."""
    settings = broker.settings
    trust.settled(broker)
    made = app(broker)
    config = uvicorn.Config(
        made,
        host=settings.host,
        port=settings.port,
        http=type("Protocol", (Protocol,), {"most": settings.connections, "dropped": staticmethod(made.gate.dropped)}),
        ws="none",
        loop="casemate.api.server:Loop",
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=settings.drain_seconds,
        ssl_certfile=str(settings.folder / TLS_CERTIFICATE),
        ssl_keyfile=str(settings.folder / TLS_KEY),
        ssl_context_factory=lambda _, default: clients.ask(harden(default(), settings.tls_minimum), settings),
        server_header=False,
        proxy_headers=False,
        access_log=False,
        log_config=None,
    )
    return uvicorn.Server(config)


class Loop(uvloop.Loop):
    """uvloop's loop, with less patience for TLS handshakes: until they are done no protocol sees the connection."""

    async def create_server(self, *args: Any, **options: Any) -> Any:
        """As uvloop's."""
        if options.get("ssl") is not None:
            options.setdefault("ssl_handshake_timeout", HANDSHAKE_SECONDS)
        return await super().create_server(*args, **options)


def harden(context: ssl.SSLContext, minimum: str) -> ssl.SSLContext:
    """Versions, ciphers and groups. Hybrid key exchange comes first where OpenSSL has it (3.5 and later).

    Python below 3.15 has no way to name groups: there OpenSSL's own default counts, which begins with the hybrid one.
    """
    context.minimum_version = ssl.TLSVersion.TLSv1_2 if minimum == "1.2" else ssl.TLSVersion.TLSv1_3
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")  # of 1.2 alone: those of 1.3 are all good
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    set_groups = getattr(context, "set_groups", None)
    if set_groups is not None and ssl.OPENSSL_VERSION_INFO >= (3, 5):
        set_groups(GROUPS)
    return context
