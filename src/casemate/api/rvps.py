"""Reference values on the wire of CoCo's key broker: `/kbs/v0/reference-value`.

A tenant's admin acts on its own values; one of the whole broker on the broker's, or with `?tenant=` on a tenant's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from casemate.api.access import closed, own
from casemate.api.answers import answer, parsed
from casemate.broker import access, rvps
from casemate.schema.kbs import ReferenceMessage

if TYPE_CHECKING:
    from casemate.broker.assemble import Broker

PATH = "/kbs/v0/reference-value"


def tenant(broker: Broker, request: Request, act: str) -> str:
    """Whose values are meant: "" for the whole broker's."""
    admin: access.Admin = request.state.admin
    asked = request.query_params.get("tenant", admin.tenant or "")
    access.demand(broker, request, act, tenant=asked or None)
    return asked


def routes(broker: Broker) -> list[BaseRoute]:
    """Registering, reading one, listing."""

    def register(request: Request, body: bytes) -> Response:
        whose = tenant(broker, request, "reference.add")
        who = request.state.admin.who
        rvps.register(broker, whose, parsed(body, ReferenceMessage, "reference value message"), who)
        return Response(status_code=200)

    def read(request: Request, body: bytes) -> Response:
        whose = tenant(broker, request, "reference.list")
        return answer(rvps.value(broker, whose, request.path_params["id"]))

    def listing(request: Request, body: bytes) -> Response:
        return answer({"reference_values": rvps.listing(broker, tenant(broker, request, "reference.list"))})

    return [
        Route(PATH, closed(broker, "reference.add", register, scope=own), methods=["POST"]),
        Route(PATH, closed(broker, "reference.list", listing, scope=own), methods=["GET"]),
        Route(f"{PATH}/{{id:path}}", closed(broker, "reference.list", read, scope=own), methods=["GET"]),
    ]
