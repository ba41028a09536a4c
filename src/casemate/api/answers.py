"""Answers: bodies with a bound on their way in, errors by meaning on their way out.

An error is the protocol's ErrorInformation (`type`, `detail`) plus `reasons`, the findings that explain a refusal. No
error carries what a caller sent, or anything of the store.
"""

from __future__ import annotations

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

_TYPES = "https://github.com/confidential-containers/kbs/errors/"
_BY_MEANING: tuple[tuple[type[CasemateError], int, str], ...] = (
    (Unauthenticated, 401, "AttestationError"),
    (Conflicting, 409, "Conflict"),
    (Refused, 403, "PolicyDeny"),
    (Missing, 404, "ResourceNotFound"),
    (Malformed, 400, "SerdeError"),
    (Unusable, 400, "InvalidRequest"),
    (Unavailable, 503, "StorageBackendUnavailable"),
)
_LOG = logging.getLogger("casemate.api")

T = TypeVar("T")
Endpoint = Callable[[Request], Awaitable[Response]]


class TooLarge(CasemateError):
    """A body beyond its bound (413)."""


def route(limit: int, act: Callable[[Request, bytes], Response]) -> Endpoint:
    """An endpoint that reads at most `limit` bytes and runs `act` in a thread: it computes and waits for disks."""

    async def endpoint(request: Request) -> Response:
        try:
            body = await _body(request, limit)
        except TooLarge as error:
            return _error(413, "PayloadTooLarge", error)
        except ClientDisconnect:
            return Response(status_code=400)
        return await run_in_threadpool(_guarded, act, request, body)

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
            return _error(status, name, error)
    return _error(500, "Internal", CasemateError("internal error"))


def _guarded(act: Callable[[Request, bytes], Response], request: Request, body: bytes) -> Response:
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


async def _body(request: Request, limit: int) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise TooLarge(f"the body has {declared} bytes, at most {limit} are allowed")
    found = bytearray()
    async for chunk in request.stream():
        found += chunk
        if len(found) > limit:
            raise TooLarge(f"the body has more than the {limit} bytes that are allowed")
    return bytes(found)


def _error(status: int, name: str, error: CasemateError) -> JSONResponse:
    found = error.findings if isinstance(error, Refused) else ()
    document: dict[str, Any] = {"type": _TYPES + name, "detail": str(error)[:2000]}
    if error.hint:
        document["hint"] = error.hint
    document["reasons"] = [finding.as_json() for finding in found if not finding.ok]
    headers = {"Connection": "close"} if status == 413 else None
    return JSONResponse(document, status, headers)
