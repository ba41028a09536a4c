"""Reference values on the wire of CoCo's key broker: `/kbs/v0/reference-value`.

A tenant's admin acts on its own values; one of the whole broker on the broker's, or with `?tenant=` on a tenant's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from casemate.api.access import closed, of_query
from casemate.api.answers import answer, parsed
from casemate.broker import rvps
from casemate.schema.kbs import ReferenceMessage

if TYPE_CHECKING:
    from casemate.broker.assemble import Broker

PATH = "/kbs/v0/reference-value"


def routes(broker: Broker) -> list[BaseRoute]:
    """Registering, reading one, listing."""

    def register(request: Request, body: bytes) -> Response:
        message = parsed(body, ReferenceMessage, "reference value message")
        rvps.register(broker, request.state.tenant or "", message, request.state.admin)
        return Response(status_code=200)

    def read(request: Request, body: bytes) -> Response:
        return answer(rvps.value(broker, request.state.tenant or "", request.path_params["id"]))

    def listing(request: Request, body: bytes) -> Response:
        return answer({"reference_values": rvps.listing(broker, request.state.tenant or "")})

    return [
        Route(PATH, closed(broker, "reference.add", register, scope=of_query), methods=["POST"]),
        Route(PATH, closed(broker, "reference.list", listing, scope=of_query), methods=["GET"]),
        Route(f"{PATH}/{{id:path}}", closed(broker, "reference.list", read, scope=of_query), methods=["GET"]),
    ]
