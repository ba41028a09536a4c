"""The application: every route on one broker, one log line a request, errors of routing in the protocol's form."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from anyio import to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from casemate.api import admin, kbs, public, volumes
from casemate.api.answers import TYPES, Intake, unexpected

if TYPE_CHECKING:
    from casemate.broker.assemble import Broker

MAX_HEAD = 256 << 10
BODIES = 256 << 20
_LOG = logging.getLogger("casemate.api")


def app(broker: Broker) -> Starlette:
    """The broker's ASGI application."""

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        to_thread.current_default_thread_limiter().total_tokens = broker.settings.threads
        yield

    made = Starlette(
        routes=[*kbs.routes(broker), *volumes.routes(broker), *public.routes(broker), *admin.routes(broker)],
        middleware=[Middleware(Journal)],
        exception_handlers={HTTPException: _no_route},
        lifespan=lifespan,
    )
    made.state.intake = Intake(BODIES)
    return made


async def _no_route(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    detail = {404: "no such path", 405: "no such method here"}.get(status, "the request cannot be read")
    return JSONResponse({"type": TYPES + "InvalidRequestPath", "detail": detail, "reasons": []}, status)


_HEAD_TOO_LONG = JSONResponse(
    {"type": TYPES + "HeadTooLarge", "detail": f"at most {MAX_HEAD} bytes of headers are allowed", "reasons": []},
    431,
    {"Connection": "close"},
)


class Journal:
    """One line a request: method, path, status, milliseconds. No query, header or body: those may hold secrets.

    Nor does an error that nobody foresaw get out of here: the caller gets a number.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and note its status."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, status = time.monotonic(), 0
        too_long = sum(len(name) + len(value) + 4 for name, value in scope["headers"]) > MAX_HEAD

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            # The server's own bound is on what it has buffered, which is one read more.
            await (_HEAD_TOO_LONG if too_long else self.app)(scope, receive, note)
        except Exception as error:  # noqa: BLE001 - the last line: the server would log the error with its text
            answer = unexpected(error)
            if not status:
                await answer(scope, receive, note)
        finally:
            spent = round((time.monotonic() - begun) * 1000, 1)
            fields = {"method": scope["method"], "path": scope["path"][:512], "status": status, "ms": spent}
            _LOG.info("request", extra={"fields": fields})
