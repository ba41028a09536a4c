"""A broker's own evidence, when it runs as a workload: guests and peers ask what it is before they trust its key.

The agent of the guest makes the evidence and the handshake that binds it to this server's TLS key; this passes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from casemate.api.answers import TYPES, route
from casemate.drivers import agent

if TYPE_CHECKING:
    from casemate.broker.assemble import Broker

PATH = "/.well-known/casemate/evidence"
_PASSED = ("nonce", "port")


def routes(broker: Broker) -> list[BaseRoute]:
    """One route, if the settings name the agent's socket."""
    socket = broker.settings.agent_socket
    if socket is None:
        return []

    def evidence(request: Request, body: bytes) -> Response:
        asked = {name: request.query_params[name][:128] for name in _PASSED if name in request.query_params}
        status, said, kind = agent.ask(socket, f"{PATH}?{urlencode(asked)}")
        if status == 200:
            return Response(said, media_type=kind)
        told = said[:500].decode("utf-8", "replace")
        return JSONResponse({"type": TYPES + "Evidence", "detail": told, "reasons": []}, status)

    return [Route(PATH, route(0, evidence), methods=["GET"])]
