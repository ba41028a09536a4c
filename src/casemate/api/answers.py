"""Answers: bodies with a bound on their way in, errors by meaning on their way out.

An error is the protocol's ErrorInformation (`type`, `detail`) plus `reasons`, the findings that explain a refusal. No
error carries what a caller sent, or anything of the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from casemate.broker.refusals import Conflicting, Missing, Unauthenticated
from casemate.errors import CasemateError, Malformed, Refused, Unavailable, Unusable
from casemate.wire import jcs

TYPES = "https://github.com/confidential-containers/kbs/errors/"
_BY_MEANING: tuple[tuple[type[CasemateError], int, str], ...] = (
    (Unauthenticated, 401, "AttestationError"),
    (Conflicting, 409, "Conflict"),
    (Refused, 403, "PolicyDeny"),
    (Missing, 404, "ResourceNotFound"),
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

_DRAIN_BYTES = 20 << 20
_DRAIN_SECONDS = 3

T = TypeVar("T")
R = TypeVar("R")
Endpoint = Callable[[Request], Awaitable[Response]]


class TooLarge(CasemateError):
    """A body beyond its bound (413)."""


class Busy(CasemateError):
    """More bodies are under way than the memory that is set aside for them (503)."""


class Intake:
    """Memory for bodies that are being read, shared by all requests: strangers can fill it and nothing more."""

    def __init__(self, budget: int) -> None:
        self._left = budget

    def take(self, count: int) -> None:
        """Set `count` bytes aside, or `Busy`."""
        if count > self._left:
            raise Busy("too many large requests at a time", hint="try again in a moment")
        self._left -= count

    def give(self, count: int) -> None:
        """Give them back."""
        self._left += count


def route(
    limit: int, act: Callable[[Request, bytes], Response], *, gate: Callable[[Request], None] | None = None
) -> Endpoint:
    """An endpoint that reads at most `limit` bytes and runs `act` in a thread: it computes and waits for disks.

    `gate` is asked before the body is read, so that only those who may come in can send much.
    """

    async def endpoint(request: Request) -> Response:
        if gate is not None and (refused := await run_in_threadpool(_guarded, _passing(gate), request, b"")):
            return refused
        held = [0]
        try:
            body = await _body(request, limit, held)
            return await run_in_threadpool(_guarded, act, request, body)
        except TooLarge as error:
            await _drain(request)
            return _error(413, "PayloadTooLarge", error)
        except Busy as error:
            return _error(503, "Busy", error)
        except ClientDisconnect:
            return Response(status_code=400)
        finally:
            request.app.state.intake.give(held[0])

    return endpoint


def parsed(body: bytes, kind: type[T], name: str) -> T:
    """A JSON body as a message; `Malformed` names the place of the error."""
    document = jcs.parse_object(body, name, limit=len(body))
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise Malformed(f"{name}: {error}") from error


def answer(value: Any, **headers: str) -> Response:
    """200 with a JSON body."""
    return Response(json.dumps(value).encode(), media_type="application/json", headers=headers)


def failure(error: CasemateError) -> JSONResponse:
    """The answer that an error deserves."""
    for kind, status, name in _BY_MEANING:
        if isinstance(error, kind):
            rule = error.findings[0].rule if isinstance(error, Refused) and error.findings else ""
            return _error(status, _BY_RULE.get(rule, name), error)
    return _error(500, "Internal", CasemateError("internal error"))


def _passing(gate: Callable[[Request], None]) -> Callable[[Request, bytes], None]:
    return lambda request, _: gate(request)


def _guarded(act: Callable[[Request, bytes], R], request: Request, body: bytes) -> R | Response:
    try:
        return act(request, body)
    except CasemateError as error:
        return failure(error)
    except Exception as error:  # noqa: BLE001 - the last line: the caller gets a number, the log gets the trace
        number = uuid.uuid4().hex[:12]
        # The trace without the error's own text, which might carry a value.
        _LOG.error("unexpected %s, incident %s", type(error).__name__, number, exc_info=_trace(error))
        return _error(500, "Internal", CasemateError(f"internal error, incident {number}"))


def _trace(error: Exception) -> Any:
    return RuntimeError, RuntimeError("see the frames"), error.__traceback__


async def _body(request: Request, limit: int, held: list[int]) -> bytes:
    """The body; `held[0]` is what it took of the intake."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise TooLarge(f"the body has {declared} bytes, at most {limit} are allowed")
    found = bytearray()
    async for chunk in request.stream():
        request.app.state.intake.take(len(chunk))
        held[0] += len(chunk)
        found += chunk
        if len(found) > limit:
            raise TooLarge(f"the body has more than the {limit} bytes that are allowed")
    return bytes(found)


async def _drain(request: Request) -> None:
    """Read on for a moment: a connection closed on unread data loses the answer that says why."""
    with contextlib.suppress(TimeoutError, ClientDisconnect, RuntimeError):
        async with asyncio.timeout(_DRAIN_SECONDS):
            read = 0
            async for chunk in request.stream():
                read += len(chunk)
                if read > _DRAIN_BYTES:
                    return


def _error(status: int, name: str, error: CasemateError) -> JSONResponse:
    found = error.findings if isinstance(error, Refused) else ()
    document: dict[str, Any] = {"type": TYPES + name, "detail": str(error)[:2000]}
    if error.hint:
        document["hint"] = error.hint
    document["reasons"] = [finding.as_json() for finding in found if not finding.ok]
    headers = {"Connection": "close"} if status in (413, 503) else None
    return JSONResponse(document, status, headers)
