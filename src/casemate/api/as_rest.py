"""The attestation service's REST, under the prefix that the operator chose; not served unless he did.

POST /attestation, POST /challenge, GET /.well-known/jwks.json, GET /healthz; GET and POST /policy, which are open at
Trustee's, are an admin's here. Errors are those of the whole service:
ErrorInformation with a status by meaning, where Trustee answers 500 and a text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from casemate.api.access import closed, whole
from casemate.api.answers import answer, parsed, route
from casemate.api.policies import AttestationPolicy
from casemate.broker import attesting, policybook
from casemate.drivers.store.policies import ATTESTATION
from casemate.schema.kbs import AsChallenge, AsRequest
from casemate.wire.encoding import unb64u

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
        return answer({"keys": broker.signer.jwks()})

    def policy(request: Request, body: bytes) -> Response:
        asked = parsed(body, AttestationPolicy, "attestation policy")
        text = unb64u(asked.policy.rstrip("="), "policy").decode("utf-8", "replace")
        policybook.put(broker, "", ATTESTATION, asked.policy_id, text, who=request.state.admin.who)
        return Response(status_code=200)

    def policies(request: Request, body: bytes) -> Response:
        held = [one for one in policybook.listing(broker, "") if one["kind"] == ATTESTATION]
        return answer([{"policy-id": one["name"]} for one in held])

    def health(request: Request, body: bytes) -> Response:
        return Response(status_code=200)

    return [
        Route(f"{prefix}/attestation", route(LIMIT, attest), methods=["POST"]),
        Route(f"{prefix}/challenge", route(64 << 10, challenge), methods=["POST"]),
        Route(f"{prefix}/policy", closed(broker, "policy.set", policy, scope=whole, limit=2 << 20), methods=["POST"]),
        Route(f"{prefix}/policy", closed(broker, "policy.list", policies, scope=whole), methods=["GET"]),
        Route(f"{prefix}/.well-known/jwks.json", route(0, keys), methods=["GET"]),
        Route(f"{prefix}/healthz", route(0, health), methods=["GET"]),
    ]
