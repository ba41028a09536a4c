"""What every request passes on its way in and out: bounds before anything is read, one log line, the counters."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from casemate.api import logs, peers
from casemate.api.answers import RULES, TYPES, unexpected
from casemate.api.metrics import Answered, Metrics
from casemate.api.rates import Buckets, Flight, exempt
from casemate.broker.meter import NOTES
from casemate.release.session import COOKIE

if TYPE_CHECKING:
    from casemate.broker.settings import Settings

MAX_HEAD = 256 << 10
LINES = 5  # a second, of what was dropped unread
# Asked by monitors, often and without credentials; they cost next to nothing and say nothing of what is kept here.
FREE = ("/healthz", "/readyz", "/metrics")
_ID = logs.HEADER.lower().encode()
_COOKIE = COOKIE.encode() + b"="
_LOG = logging.getLogger("casemate.api")


class Gate:
    """The bounds of one application (`casemate.api.rates`)."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        workers = max(1, settings.workers)
        self.metrics = metrics
        self.flight = Flight(settings.requests)
        self.buckets = Buckets(settings.rate / workers, settings.burst // workers)
        self.exempt = exempt(settings.rate_exempt)
        self._lines, self._unsaid = Buckets(LINES, LINES), 0

    def dropped(self, why: str) -> None:
        """Count what ended before it was a request, or before its answer was taken (`api.protocol`).

        Strangers cause it at will, so that a line of it is logged a few times a second; it tells how many were not.
        """
        self.metrics.dropped(why)
        if self._lines.wait(""):
            self._unsaid += 1
            return
        self._lines.take("")
        fields = {"why": why, **({"unsaid": self._unsaid} if self._unsaid else {})}
        self._unsaid = 0
        _LOG.info("dropped", extra={"fields": fields})


class Journal:
    """Bounds, then the application, then one line a request: method, path, status, milliseconds, failed rules.

    No query, header or body: those may hold secrets. Nor does an error that nobody foresaw get out of here: the caller
    gets a number.
    """

    def __init__(self, app: ASGIApp, gate: Gate | None = None) -> None:
        self.app, self.gate = app, gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and note what came of it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        passing = _Passing(scope, receive, send)
        token, noted = logs.REQUEST.set(passing.id), NOTES.set(passing.notes)
        try:
            await self._bounded(passing)
        except Exception as error:  # noqa: BLE001 - the last line: the server would log the error with its text
            answer = unexpected(error)
            if not passing.status:
                await answer(scope, receive, passing.send)
        finally:
            self._note(passing)
            logs.REQUEST.reset(token)
            NOTES.reset(noted)

    async def _bounded(self, passing: _Passing) -> None:
        turned = self._turned_away(passing)
        if turned is not None:
            await turned(passing.scope, passing.receive, passing.send)
            return
        try:
            await self.app(passing.scope, passing.receive, passing.send)
        finally:
            if self.gate is not None:
                self.gate.flight.end(passing.who)

    def _turned_away(self, passing: _Passing) -> JSONResponse | None:
        """The answer to a request that must not come in; else it is counted as under way."""
        if passing.head > MAX_HEAD:
            return _answer(431, "HeadTooLarge", f"at most {MAX_HEAD} bytes of headers are allowed")
        gate = self.gate
        if gate is None:
            return None
        if passing.path not in FREE and not gate.exempt(passing.address):
            if wait := gate.buckets.wait(passing.who):
                gate.metrics.limited("rate")
                return _answer(429, "TooManyRequests", "too many requests from this address", wait)
            if not passing.credentials:
                gate.buckets.take(passing.who)
            else:  # before the answer leaves, so that the next guess finds it
                passing.charge = lambda: gate.buckets.take(passing.who)
        full = gate.flight.begin(passing.who)
        if full:
            gate.metrics.limited(full)
            status = 429 if full == "peer" else 503
            return _answer(status, "Busy", "too many requests at a time", 1)
        gate.metrics.active.inc()
        passing.counted = True
        return None

    def _note(self, passing: _Passing) -> None:
        scope, spent = passing.scope, time.monotonic() - passing.begun
        served = scope.get("app")  # a path may hold the id of a receipt or a lease: the log names the route alone
        template = served.state.templates.get(scope.get("endpoint"), "") if served else ""
        fields: dict[str, Any] = {"method": scope["method"], "path": template or "-", "status": passing.status}
        fields["ms"] = round(spent * 1000, 1)
        rules = scope.get(RULES, [])
        if rules:
            fields["rules"] = rules[:16]
        _LOG.info("request", extra={"fields": fields})
        if self.gate is None:
            return
        if passing.counted:
            self.gate.metrics.active.dec()
        if passing.path != "/metrics":  # as Trustee does: watching is not what is watched
            self.gate.metrics.answered(
                Answered(
                    route=template,
                    method=scope["method"],
                    path=passing.path,
                    status=passing.status,
                    seconds=spent,
                    sent=passing.sent,
                    got=passing.got,
                    rules=rules,
                    tee=passing.notes.get("tee", ""),
                )
            )


class _Passing:
    """One request on its way: who sent it, and what was read and answered so far."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope, self._receive, self._send = scope, receive, send
        headers = scope["headers"]
        self.notes: dict[str, str] = {}
        self.charge: Callable[[], None] = lambda: None  # what it costs if its credentials opened nothing
        self.begun, self.status, self.sent, self.got, self.counted = time.monotonic(), 0, 0, 0, False
        self.path: str = scope["path"]
        self.id = logs.request_id(headers)
        client = scope.get("client")
        self.address: str | None = client[0] if client else None
        self.who = peers.peer(self.address)
        self.head, self.credentials = 0, False
        for name, value in headers:
            self.head += len(name) + len(value) + 4
            if name == b"authorization" or (name == b"cookie" and _COOKIE in value):
                self.credentials = True

    def _opened(self) -> bool:
        """Whether somebody was recognised: an admin (`broker.access`) or a guest's session (`api.kbs`)."""
        state = self.scope.get("state") or {}
        return self.status != 401 and ("admin" in state or "session" in state)

    async def receive(self) -> Message:
        """The next piece of the body."""
        message = await self._receive()
        self.got += len(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        """The next piece of the answer; the head gets the request's id."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if not self._opened():
                self.charge()
            message["headers"] = [*message["headers"], (_ID, self.id.encode())]
        else:
            self.sent += len(message.get("body", b""))
        await self._send(message)


def _answer(status: int, name: str, detail: str, wait: int = 0) -> JSONResponse:
    headers = {"Connection": "close"} if status != 429 else {}
    if wait:
        headers["Retry-After"] = str(wait)
    return JSONResponse({"type": TYPES + name, "detail": detail, "reasons": []}, status, headers)
