"""Policies that are only tried (checked, explained, simulated): on threads of their own, a few at a time.

They take seconds and any auditor may ask for them; requests of guests never wait for them. One at a time for the admins
of a tenant (those of the whole broker count as one): the next one of theirs is told 429 at once. AT_ONCE in all for
each worker process: other tenants wait in turn, so that nobody keeps the turns for himself; after PATIENCE 429.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from anyio import CapacityLimiter, to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from casemate.api import access
from casemate.api.answers import TYPES, Endpoint, carried

if TYPE_CHECKING:
    from casemate.broker.assemble import Broker

AT_ONCE = 2
PATIENCE = 25.0  # seconds; a simulation takes 20 at most
WAIT = 5  # seconds until a caller should come back


class Turns:
    """Who tries a policy right now. For the event loop's thread alone."""

    def __init__(self) -> None:
        self._held: set[str | None] = set()
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._limiter = CapacityLimiter(AT_ONCE)

    async def run(self, later: Later, request: Request) -> Response:
        """What was put off; 429 when there is no turn for it."""
        whose = request.state.admin.tenant
        if whose in self._held:
            return _busy()
        self._held.add(whose)
        try:
            async with asyncio.timeout(PATIENCE):
                await self._turns.acquire()
        except TimeoutError:
            return _busy()
        else:
            try:
                return await to_thread.run_sync(carried, later.handle, request, later.given, limiter=self._limiter)
            finally:
                self._turns.release()
        finally:
            self._held.discard(whose)


class Later(Response):
    """Stands for the answer of a handler that is not to be run on a thread for requests."""

    def __init__(self, handle: access.Handle, given: bytes) -> None:
        super().__init__(status_code=503)
        self.handle, self.given = handle, given


def closed(
    broker: Broker, act: str, handle: access.Handle, *, scope: access.Scope, limit: int = access.LIMIT
) -> Endpoint:
    """`access.closed`, whose handler takes a turn of `app.state.trials`."""

    def put_off(_: Request, body: bytes) -> Response:
        return Later(handle, body)

    inner = access.closed(broker, act, put_off, scope=scope, limit=limit)

    async def endpoint(request: Request) -> Response:
        found = await inner(request)
        if not isinstance(found, Later):
            return found
        turns: Turns = request.app.state.trials
        return await turns.run(found, request)

    lock: access.Lock = inner.access  # type: ignore[attr-defined] # `access.closed` sets it
    endpoint.access = lock._replace(handle=handle)  # type: ignore[attr-defined] # an approved one is carried out there
    return endpoint


def _busy() -> JSONResponse:
    told = {"type": TYPES + "Busy", "detail": "another policy is being tried", "hint": "try again in a moment"}
    return JSONResponse({**told, "reasons": []}, 429, {"Retry-After": str(WAIT)})
