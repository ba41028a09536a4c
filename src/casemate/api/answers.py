"""Answers: bodies with a bound on their way in, errors by meaning on their way out.

An error is the protocol's ErrorInformation (`type`, `detail`) plus `reasons`, the findings that explain a refusal. No
error carries what a caller sent, or anything of the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import threading
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from casemate.api import peers, strict
from casemate.api.crowd import Crowd
from casemate.api.pool import Pool
from casemate.broker import held
from casemate.broker.refusals import Conflicting, Missing, NoPath, Unauthenticated
from casemate.drivers.rego import Crowded
from casemate.errors import CasemateError, Finding, Malformed, Refused, Unavailable, Unusable
from casemate.wire import jcs

RECEIPT_HEADER = "Casemate-Receipt"
TYPES = "https://github.com/confidential-containers/kbs/errors/"
_BY_MEANING: tuple[tuple[type[CasemateError], int, str], ...] = (
    (Unauthenticated, 401, "AttestationError"),
    (Conflicting, 409, "Conflict"),
    (Refused, 403, "PolicyDeny"),
    (Missing, 404, "ResourceNotFound"),
    (NoPath, 404, "InvalidRequestPath"),
    (Malformed, 400, "SerdeError"),
    (Unusable, 400, "InvalidRequest"),
    (Unavailable, 503, "StorageBackendUnavailable"),
)
# The peers' names for what stops a caller before evidence is looked at.
_BY_RULE = {
    "session.absent": "TokenNotFound",
    "session.token": "TokenVerifierError",
    "admin.token": "AdminAuthAccess",
    "admin.role": "AdminAuthAccess",
}
_LOG = logging.getLogger("casemate.api")
RULES = "casemate.rules"  # where a request's scope keeps the failed rules of its refusal, for counters and the log

BODY_SECONDS = 30.0
BODY_PACE = 128 << 10  # bytes a second that a long body must come with after that
_SHORT = 64 << 10  # a body that is read without asking who sends it
LONG = 1 << 20
_LONG = threading.Lock()
_DRAIN_BYTES = 20 << 20
_DRAIN_SECONDS = 3

T = TypeVar("T")
R = TypeVar("R")
Endpoint = Callable[[Request], Awaitable[Response]]


class TooLarge(CasemateError):
    """A body beyond its bound (413)."""


class Busy(CasemateError):
    """More bodies are under way than the memory that is set aside for them (503)."""


class Slow(CasemateError):
    """A body that did not come in time (408)."""


class Intake:
    """Memory for bodies that are being read, shared by all requests: strangers can fill it and nothing more.

    One peer (`casemate.api.peers`) can fill its share of it.
    """

    def __init__(self, budget: int) -> None:
        self._budget = self.left = budget
        self._held: dict[str, int] = {}

    def take(self, count: int, who: str) -> None:
        """Set `count` bytes aside for a peer, or `Busy`."""
        held = self._held.get(who, 0) + count
        if count > self.left or held > peers.share(who, self._budget):
            raise Busy("too many large requests at a time", hint="try again in a moment")
        self.left -= count
        self._held[who] = held

    def give(self, count: int, who: str) -> None:
        """Give them back."""
        self.left += count
        self._held[who] = self._held.get(who, 0) - count
        if self._held[who] <= 0:
            del self._held[who]


def route(
    limit: int, act: Callable[[Request, bytes], Response], *, gate: Callable[[Request], None] | None = None
) -> Endpoint:
    """An endpoint that reads at most `limit` bytes and runs `act` in a thread: it computes and waits for disks.

    `gate` is asked before a long body is read, so that only those who may come in can send much; with a short one they
    share a thread's turn. No answer leaves before what was decided for it is on disk (`casemate.broker.held`).
    """

    def both(request: Request, body: bytes) -> Response:
        if gate is not None:
            gate(request)
        return act(request, body)

    async def endpoint(request: Request) -> Response:
        whole: Callable[[Request, bytes], Response] = both
        if gate is not None and long(request, limit):
            if refused := await _run(_passing(gate), request, b""):
                return refused
            whole = act
        taken = [0]
        try:
            body = await _body(request, limit, taken)
            return await _run(whole, request, body)
        except TooLarge as error:
            await _drain(request)
            return _error(413, "PayloadTooLarge", error)
        except Busy as error:
            return _error(503, "Busy", error)
        except Slow as error:
            return _error(408, "RequestTimeout", error)
        except ClientDisconnect:
            return Response(status_code=400)
        finally:
            if taken[0]:
                request.app.state.intake.give(taken[0], _who(request))

    return endpoint


async def _run(act: Callable[[Request, bytes], R], request: Request, body: bytes) -> R | Response:
    """`act` in a thread; its answer, or the error of recording what it decided, once that is on disk or failed.

    Cancelled, it gives no answer at all, and `casemate.api.protocol` lets none be made up.
    """
    with held.collecting() as holds:
        try:
            made = await _begun(act, request, body)
        except Crowded as error:
            made = _failed(error, request)
        except Exception as error:  # noqa: BLE001 - as if the act had raised it: what it decided is waited for
            made = unexpected(error)
    if not holds:
        return made
    try:
        await held.settled(holds)
    except Exception as error:  # noqa: BLE001 - whatever it is, the answer that was made is not given
        return _failed(error, request)
    return made


async def _begun(act: Callable[[Request, bytes], R], request: Request, body: bytes) -> R | Response:
    """`act` in a thread; where its tenant holds its share of them already, once it holds less (`Crowded`)."""
    pool: Pool = request.app.state.pool
    try:
        return await pool.run(_guarded, act, request, body)
    except Crowded as error:
        crowd: Crowd = request.app.state.crowd
        return await crowd.wait(error, lambda: pool.run(_guarded, act, request, body))


def carried(act: Callable[[Request, bytes], Response], request: Request, body: bytes) -> Response:
    """`act`, with errors as answers: what `route` does when the body is there."""
    return _guarded(act, request, body)


def parsed(body: bytes, kind: type[T], name: str) -> T:
    """A JSON body as a message; `Malformed` names the place of the error.

    Long ones are read one at a time: each takes several times its size meanwhile.
    """
    with _LONG if len(body) > LONG else contextlib.nullcontext():
        document = jcs.parse_object(body, name, limit=len(body))
        try:
            return msgspec.convert(document, kind)
        except msgspec.ValidationError as error:
            document.clear()  # the error's trace would keep it
            raise Malformed(f"{name}: {error}") from error


def answer(value: Any, **headers: str) -> Response:
    """200 with a JSON body."""
    return Response(json.dumps(value).encode(), media_type="application/json", headers=headers)


def failure(error: CasemateError, request: Request) -> JSONResponse:
    """The answer that an error deserves."""
    for kind, status, name in _BY_MEANING:
        if isinstance(error, kind):
            rule = error.findings[0].rule if isinstance(error, Refused) and error.findings else ""
            named = strict.named(request, status, _BY_RULE.get(rule, name))
            return _short_of(request, *named, error) or _error(*named, error)
    return _error(500, "Internal", CasemateError("internal error"))


def long(request: Request, limit: int) -> bool:
    """Whether a body of at most `limit` bytes is so long that its gate is asked before it is read."""
    return _length(request) > min(limit, _SHORT)


def _passing(gate: Callable[[Request], None]) -> Callable[[Request, bytes], None]:
    return lambda request, _: gate(request)


def _guarded(act: Callable[[Request, bytes], R], request: Request, body: bytes) -> R | Response:
    try:
        return act(request, body)
    except Crowded:
        raise
    except Exception as error:  # noqa: BLE001 - the caller gets a number, the log gets the trace
        return _failed(error, request)


def _failed(error: Exception, request: Request) -> Response:
    if not isinstance(error, CasemateError):
        return unexpected(error)
    if isinstance(error, Refused):
        request.scope[RULES] = [finding.rule for finding in error.findings if not finding.ok]
    return failure(error, request)


def unexpected(error: Exception) -> JSONResponse:
    """500 for an error that nobody foresaw: the log gets its trace without its text, which might carry a value."""
    number = uuid.uuid4().hex[:12]
    _LOG.error("unexpected %s, incident %s", type(error).__name__, number, exc_info=_trace(error))
    return _error(500, "Internal", CasemateError(f"internal error, incident {number}"))


def _trace(error: Exception) -> Any:
    return RuntimeError, RuntimeError("see the frames"), error.__traceback__


def _length(request: Request) -> float:
    """Bytes that the body has by its head; infinite when that says nothing of it."""
    length: float = 0
    for name, value in request.scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else math.inf
        if name == b"transfer-encoding":
            length = math.inf
    return length


async def _body(request: Request, limit: int, taken: list[int]) -> bytes:
    """The body; `taken[0]` is what it took of the intake. It must come in the time that its length deserves."""
    declared = _length(request)
    if not declared:
        return b""
    if limit < declared < math.inf:
        raise TooLarge(f"the body has {declared} bytes, at most {limit} are allowed")
    seconds = BODY_SECONDS + min(declared, limit) / BODY_PACE
    try:
        async with asyncio.timeout(seconds):
            return await _read(request, limit, taken)
    except TimeoutError as error:
        raise Slow(f"the body did not come within {seconds:.0f} seconds") from error


async def _read(request: Request, limit: int, taken: list[int]) -> bytes:
    found, who = bytearray(), _who(request)
    async for chunk in request.stream():
        request.app.state.intake.take(len(chunk), who)
        taken[0] += len(chunk)
        found += chunk
        if len(found) > limit:
            raise TooLarge(f"the body has more than the {limit} bytes that are allowed")
    return bytes(found)


def _who(request: Request) -> str:
    return peers.peer(request.client.host if request.client else None)


async def _drain(request: Request) -> None:
    """Read on for a moment: a connection closed on unread data loses the answer that says why."""
    with contextlib.suppress(TimeoutError, ClientDisconnect, RuntimeError):
        async with asyncio.timeout(_DRAIN_SECONDS):
            read = 0
            async for chunk in request.stream():
                read += len(chunk)
                if read > _DRAIN_BYTES:
                    return


def _short_of(request: Request, status: int, name: str, error: CasemateError) -> JSONResponse | None:
    """A refusal as guests and strangers are told it: rules, hints and a number that the log has; None for admins."""
    admin = getattr(request.state, "admin", None) is not None
    if not isinstance(error, Refused) or admin or getattr(request.app.state, "full_reasons", False):
        return None
    number, failed = uuid.uuid4().hex[:12], [finding for finding in error.findings if not finding.ok]
    fields = {"request": number, "path": request.url.path[:512], "reasons": [one.as_json() for one in failed][:24]}
    _LOG.info("refused", extra={"fields": fields})
    told = Refused([Finding(one.rule, "", "", one.hint) for one in failed], _plain(failed))
    answer = _error(status, name, told)
    document = {**json.loads(bytes(answer.body)), "request": number}
    return JSONResponse(document, status)


def _plain(failed: list[Finding]) -> str:
    return "refused: " + ", ".join(one.rule for one in failed)


def _error(status: int, name: str, error: CasemateError) -> JSONResponse:
    found = error.findings if isinstance(error, Refused) else ()
    document: dict[str, Any] = {"type": TYPES + name, "detail": str(error)[:2000]}
    if error.hint:
        document["hint"] = error.hint
    document["reasons"] = [finding.as_json() for finding in found if not finding.ok]
    headers = {"Connection": "close"} if status in (408, 413, 503) else {}
    if status == 503:
        headers["Retry-After"] = "1"
    return JSONResponse(document, status, headers)
