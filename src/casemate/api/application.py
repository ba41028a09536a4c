"""The application: every part's routes on one broker, errors of routing in the protocol's form."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from casemate.api import (
    admin,
    as_rest,
    console,
    evidence,
    health,
    issuing,
    kbs,
    log,
    openapi,
    policies,
    public,
    rvps,
    secrets,
    strict,
    trials,
    volumes,
)
from casemate.api.answers import TYPES, Intake
from casemate.api.crowd import Crowd
from casemate.api.gate import MAX_HEAD, Gate, Journal
from casemate.api.metrics import Metrics
from casemate.api.pool import Pool
from casemate.broker import shapes, sweeping

if TYPE_CHECKING:
    from casemate.broker.assemble import Broker

__all__ = ["MAX_HEAD", "PARTS", "Journal", "app"]

# Every module with routes; what each route takes and answers is declared in `operations` (a test finds what is not).
PARTS = (
    health, evidence, kbs, rvps, as_rest, volumes, public, issuing, log, admin, secrets, policies, openapi, console,
)  # fmt: skip
BODIES = 256 << 20
HOT, RESOURCE = "/kbs/v0/", "/kbs/v0/resource/"


def app(broker: Broker) -> Application:
    """The broker's ASGI application."""

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        with contextlib.closing(made.state.pool), sweeping.begun(broker):
            yield

    shapes.ready(broker.settings.refused_tees)
    metrics = Metrics(broker.settings)
    made = Application(
        routes=[route for part in PARTS for route in part.routes(broker)],
        exception_handlers={HTTPException: _no_route},
        lifespan=lifespan,
    )
    made.gate = Gate(broker.settings, metrics)
    made.router.redirect_slashes = False  # a path is what it is; a redirect would repeat the caller's Host
    made.state.intake = Intake(BODIES)
    made.state.pool = Pool(broker.settings.threads)
    made.state.crowd = Crowd(broker.settings.requests // 8)
    made.state.trials = trials.Turns()
    made.state.metrics = metrics
    made.state.strict = broker.settings.strict_trustee
    made.state.full_reasons = broker.settings.guest_reasons == "full"
    made.state.templates = {route.endpoint: route.path for route in made.routes if isinstance(route, Route)}
    broker.meter.attach(metrics)
    return made


class Application(Starlette):
    """Starlette, without its outermost layer: nothing gets out of `Journal` that it could answer."""

    gate: Gate

    def build_middleware_stack(self) -> ASGIApp:
        """What a request passes, from the outside in."""
        routed = ExceptionMiddleware(self.router, handlers=self.exception_handlers)
        return Journal(Direct(routed, self.routes), gate=self.gate)


class Direct:
    """Calls the endpoints that guests ask for all day, by method and path; all else goes through the router.

    Only for paths that no other route matches. Such an endpoint answers all its errors itself.
    """

    def __init__(self, app: ASGIApp, routes: Iterable[BaseRoute]) -> None:
        self.app = app
        known = [route for route in routes if isinstance(route, Route) and route.path.startswith(HOT)]
        self._exact = {(m, r.path): r for r in known if not r.param_convertors for m in r.methods or ()}
        self._named = [r for r in known if r.path.startswith(RESOURCE)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        found = self._found(scope) if scope["type"] == "http" else None
        if found is None:
            await self.app(scope, receive, send)
            return
        scope["endpoint"] = found.endpoint
        request = Request(scope, receive, send)
        response = await found.endpoint(request)
        await response(scope, receive, send)

    def _found(self, scope: Scope) -> Route | None:
        path, method = scope["path"], scope["method"]
        exact = self._exact.get((method, path))
        if exact is not None:
            scope["path_params"] = {}
            return exact
        if path.startswith(RESOURCE):
            for route in self._named:
                if method in (route.methods or ()) and (match := route.path_regex.match(path)):
                    scope["path_params"] = match.groupdict()
                    return route
        return None


async def _no_route(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    variant = strict.missing(request.url.path) if status == 404 else "InvalidRequestPath"
    status, variant = strict.named(request, status, variant)
    detail = {404: "no such path", 405: "no such method here"}.get(status, "the request cannot be read")
    headers = {"Allow": ", ".join(_methods(request))} if status == 405 else None
    return JSONResponse({"type": TYPES + variant, "detail": detail, "reasons": []}, status, headers)


def _methods(request: Request) -> list[str]:
    """What this path takes, by all of its routes (RFC 9110 section 15.5.6)."""
    there = [r for r in request.app.routes if isinstance(r, Route) and r.matches(request.scope)[0] is not Match.NONE]
    return sorted({method for route in there for method in route.methods or ()})
