"""The broker as an issuer: its key set and discovery document, tokens for others, and the rotation of its keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from casemate.api.access import closed, of_app, who, whole
from casemate.api.answers import RECEIPT_HEADER, answer, parsed, route
from casemate.api.kbs import session
from casemate.broker import audiences, keyring, resources
from casemate.broker.tokens import ALGORITHM
from casemate.drivers.store.registry import millis, rfc3339
from casemate.release.session import LEASE_HEADER

if TYPE_CHECKING:
    from casemate.broker.assemble import Broker

BASE = "/casemate/v0/admin"
JWKS, DISCOVERY = "/.well-known/jwks.json", "/.well-known/openid-configuration"
_KEPT = {"Cache-Control": f"public, max-age={keyring.LEAD // 2}"}
_MOST_LEAD = 7 * 86400


class Audiences(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """For whom an app's guests may get tokens."""

    audiences: tuple[str, ...]


class Rotation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """New keys: published now, used in `lead` seconds; with `revoke` used at once, and the old ones forgotten."""

    lead: int = keyring.LEAD
    revoke: bool = False


def routes(broker: Broker) -> list[BaseRoute]:
    """What anybody may read, what guests may ask, what admins may set."""

    def keys(request: Request, body: bytes) -> Response:
        return answer({"keys": broker.signer.jwks()}, **_KEPT)

    def discovery(request: Request, body: bytes) -> Response:
        return answer(_document(broker.settings.issuer_url), **_KEPT)

    def token(request: Request, body: bytes) -> Response:
        parts = [str(request.path_params.get(part, "default")) for part in ("repo", "type", "tag")]
        audience = request.query_params.get("aud", "")
        grant = audiences.token(broker, session(broker, request), resources.path_of(*parts), audience)
        headers = {RECEIPT_HEADER: grant.receipt, LEASE_HEADER: str(grant.lease), "Cache-Control": "no-store"}
        return answer(grant.sealed, **headers)

    return [
        Route(JWKS, route(0, keys), methods=["GET"]),
        Route(DISCOVERY, route(0, discovery), methods=["GET"]),
        Route("/kbs/v0/token", route(0, token), methods=["GET"]),
        Route("/kbs/v0/token/{repo}/{type}/{tag}", route(0, token), methods=["GET"]),
        *_admins(broker),
    ]


def _admins(broker: Broker) -> list[BaseRoute]:
    def allow(request: Request, body: bytes) -> Response:
        asked = parsed(body, Audiences, "audiences")
        found = audiences.allow(broker, request.path_params["id"], asked.audiences, who=who(request))
        return answer({"audiences": list(found)})

    def allowed(request: Request, body: bytes) -> Response:
        return answer({"audiences": list(audiences.listing(broker, request.path_params["id"]))})

    def rotate(request: Request, body: bytes) -> Response:
        asked = parsed(body or b"{}", Rotation, "rotation")
        lead = min(max(asked.lead, keyring.LEAD), _MOST_LEAD)
        keyring.rotate(broker, lead=lead, revoke=asked.revoke, who=who(request))
        return answer({"keys": _keys(broker)})

    def keys(request: Request, body: bytes) -> Response:
        return answer({"keys": _keys(broker)})

    where = f"{BASE}/apps/{{id}}/audiences"
    return [
        Route(where, closed(broker, "app.audiences", allow, scope=of_app, limit=64 << 10), methods=["POST"]),
        Route(where, closed(broker, "app.list", allowed, scope=of_app, limit=0), methods=["GET"]),
        Route(f"{BASE}/keys", closed(broker, "key.list", keys, scope=whole, limit=0), methods=["GET"]),
        Route(f"{BASE}/keys/rotate", closed(broker, "key.rotate", rotate, scope=whole, limit=4096), methods=["POST"]),
    ]


def _keys(broker: Broker) -> list[dict[str, Any]]:
    """The keys of every ring; those that sign with their public names."""
    found = []
    for ring in broker.keyrings:
        used = ring.current().name
        for key in ring.all():
            state = "current" if key.name == used else "previous" if key.begun <= ring.current().begun else "next"
            found.append({"key": key.name, "kind": ring.kind, "state": state, "begins": rfc3339(millis(key.begun))})
    return found


def _document(issuer: str) -> dict[str, Any]:
    """OpenID Connect Discovery 1.0 section 3, as far as verifiers of workloads' tokens read it."""
    return {
        "issuer": issuer,
        "jwks_uri": issuer + JWKS,
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [ALGORITHM],
        "scopes_supported": ["openid"],
        "claims_supported": ["iss", "sub", "aud", "exp", "iat", "nbf", "jti", "cnf", "tenant", "app", "release", "tee"],
    }
