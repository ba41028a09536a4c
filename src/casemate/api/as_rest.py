"""The attestation service's REST, under the prefix that the operator chose; not served unless he did.

POST /attestation, POST /challenge, GET /.well-known/jwks.json, GET /healthz. Errors are those of the whole service:
ErrorInformation with a status by meaning, where Trustee answers 500 and a text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from casemate.api.answers import answer, parsed, route
from casemate.broker import attesting
from casemate.schema.kbs import AsChallenge, AsRequest

if TYPE_CHECKING:
    from casemate.broker.assemble import Broker

LIMIT = 8 << 20


def routes(broker: Broker) -> list[BaseRoute]:
    """The service's routes, none when it is not configured."""
    prefix = broker.settings.attestation_service
    if not prefix:
        return []

    def attest(request: Request, body: bytes) -> Response:
        return PlainTextResponse(attesting.evaluate(broker, parsed(body, AsRequest, "attestation request")))

    def challenge(request: Request, body: bytes) -> Response:
        return PlainTextResponse(attesting.challenge(broker, parsed(body, AsChallenge, "challenge request").tee))

    def keys(request: Request, body: bytes) -> Response:
        return answer({"keys": [broker.signer.jwk]})

    def health(request: Request, body: bytes) -> Response:
        return Response(status_code=200)

    return [
        Route(f"{prefix}/attestation", route(LIMIT, attest), methods=["POST"]),
        Route(f"{prefix}/challenge", route(64 << 10, challenge), methods=["POST"]),
        Route(f"{prefix}/.well-known/jwks.json", route(0, keys), methods=["GET"]),
        Route(f"{prefix}/healthz", route(0, health), methods=["GET"]),
    ]
