"""What anybody may ask: the broker's keys and anchors, its signed statement of an app."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from casemate.api.answers import answer, route
from casemate.broker import apps

if TYPE_CHECKING:
    from casemate.broker.assemble import Broker


def routes(broker: Broker) -> list[BaseRoute]:
    """The public routes."""

    def info(request: Request, body: bytes) -> Response:
        return answer(apps.info(broker))

    def statement(request: Request, body: bytes) -> Response:
        known = apps.statement(broker, request.path_params["id"])
        return answer({"statement": broker.signer.statement(known)})

    return [
        Route("/casemate/v0/info", route(0, info), methods=["GET"]),
        Route("/casemate/v0/apps/{id}", route(0, statement), methods=["GET"]),
    ]
