"""Health and metrics: alive (`/healthz`), ready for requests (`/readyz`), counters (`/metrics`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from casemate.api.answers import TYPES, answer, route
from casemate.broker import access, readiness

if TYPE_CHECKING:
    from casemate.broker.assemble import Broker


def routes(broker: Broker) -> list[BaseRoute]:
    """What a monitor asks."""

    async def alive(request: Request) -> Response:  # on the event loop: no busy thread makes it look dead
        return answer({"alive": True})

    def ready(request: Request, body: bytes) -> Response:
        checks = readiness.checks(broker)
        if all(checks.values()):
            return answer({"ready": True, "checks": checks})
        failed = ", ".join(name for name, holds in checks.items() if not holds)
        document = {"type": TYPES + "NotReady", "detail": f"not ready: {failed}", "reasons": []}
        return JSONResponse({**document, "ready": False, "checks": checks}, 503, {"Retry-After": "1"})

    def metrics(request: Request, body: bytes) -> Response:
        text, kind = request.app.state.metrics.text()
        return Response(text, headers={"Content-Type": kind})

    def closed(request: Request) -> None:
        access.demand(broker, request, "metrics.read", tenant=None)

    gate: Callable[[Request], None] | None = None if broker.settings.metrics_open else closed
    return [
        Route("/healthz", alive, methods=["GET"]),
        Route("/readyz", route(0, ready), methods=["GET"]),
        Route("/metrics", route(0, metrics, gate=gate), methods=["GET"]),
    ]
