"""The server: uvicorn on the broker's own key, TLS 1.3 only, bounded heads, a graceful end on SIGTERM."""

from __future__ import annotations

import json
import logging
import signal
import ssl
import sys
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from casemate.api.application import MAX_HEAD, app
from casemate.broker.assemble import TLS_CERTIFICATE, TLS_KEY
from casemate.errors import Unusable

if TYPE_CHECKING:
    from casemate.broker.assemble import Broker

KEEP_ALIVE = 75
_GOODBYE_SECONDS = 0.3
_MAX_LOG, _OLD_LOGS = 16 << 20, 3
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
        loop="asyncio",
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


class _Protocol(H11Protocol):
    """h11, but a peer that keeps an idle TLS connection open does not hold up the end of the server."""

    def shutdown(self) -> None:
        """Close when idle; asyncio would wait half a minute for the peer to say goodbye."""
        super().shutdown()
        if self.cycle is None or self.cycle.response_complete:
            self.loop.call_later(_GOODBYE_SECONDS, self.transport.abort)


def _tls(config: uvicorn.Config, default: Any) -> ssl.SSLContext:
    context: ssl.SSLContext = default()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def log_to(path: Path | None) -> None:
    """Structured logs, one JSON object a line, to a file (the newest 64 MiB are kept) or to stderr."""
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    if path:
        handler = RotatingFileHandler(path, maxBytes=_MAX_LOG, backupCount=_OLD_LOGS)
    handler.setFormatter(_Json())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for name in ("alembic", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.WARNING)


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """One line; a traceback names frames, never values."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": time, "level": record.levelname.lower(), "logger": record.name, "message": record.getMessage()}
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line)
