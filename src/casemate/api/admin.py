"""The admin's routes: closed to all but a short-lived JWT signed with the key that `init` made."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
from cryptography.hazmat.primitives import serialization
from joserfc import jwt
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import OKPKey
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from casemate.api.answers import Endpoint, answer, parsed, route
from casemate.broker import apps
from casemate.broker.refusals import Unauthenticated
from casemate.errors import Malformed, Refused
from casemate.schema.endorsements import PRODUCTION, Anchor
from casemate.schema.reference import ReferenceValues
from casemate.wire.encoding import unb64

if TYPE_CHECKING:
    from casemate.broker.assemble import Broker

LIMIT = 16 << 20
AUDIENCE = "KBS"
ROLE = "admin"
MAX_LIFETIME = 300
SKEW = 60


class Founding(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new app."""

    tenant: str
    name: str
    platforms: tuple[str, ...] = (PRODUCTION,)


class Platforms(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The platform classes that an app allows."""

    platforms: tuple[str, ...]


class NewAnchor(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A root certificate (base64 DER), the class of platforms that it may vouch for, and their TEEs by wire name."""

    certificate: str
    platform_class: str
    name: str = ""
    tees: tuple[str, ...] | None = None

    def anchor(self) -> Anchor:
        """The anchor; without `tees` one of the default TEE."""
        der = unb64(self.certificate, "certificate")
        made = Anchor(certificate=der, platform_class=self.platform_class, name=self.name[:256])
        return made if self.tees is None else msgspec.structs.replace(made, tees=self.tees)


def demand(broker: Broker, request: Request) -> None:
    """Refuse whoever is not the admin: 401 without a good token, 403 with one of another role."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    claims = _claims(broker, token.strip()) if scheme.lower() == "bearer" else None
    if claims is None:
        raise Unauthenticated.because(
            "admin.token",
            expected=f"a current JWT (EdDSA, aud {AUDIENCE}, at most {MAX_LIFETIME} s) of the admin's key",
            found="another one" if token else "none",
            hint="the key that `init` made is needed",
        )
    if claims.get("role") != ROLE:
        raise Refused.because("admin.role", expected=ROLE, found="another role", hint="ask an admin")


def _claims(broker: Broker, token: str) -> dict[str, Any] | None:
    raw = broker.admin.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    now = broker.clock().timestamp()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)  # CoCo's admin tokens say EdDSA, RFC 9864 says Ed25519
            claims = jwt.decode(token, OKPKey.import_key(raw), algorithms=["EdDSA", "Ed25519"]).claims
        issued, ends = float(claims["iat"]), float(claims["exp"])
    except (JoseError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    audience = claims.get("aud")
    named = AUDIENCE in audience if isinstance(audience, list) else audience == AUDIENCE
    timely = issued <= now + SKEW and now < ends <= issued + MAX_LIFETIME
    return claims if named and timely else None


def routes(broker: Broker) -> list[BaseRoute]:
    """The admin's routes; every one of them demands the admin first."""

    def found(request: Request, body: bytes) -> Response:
        asked = parsed(body, Founding, "app")
        known = apps.found(broker, asked.tenant, asked.name, asked.platforms)
        return answer({"app_id": known.app_id, "founding": msgspec.to_builtins(known.founding)})

    def listing(request: Request, body: bytes) -> Response:
        return answer({"apps": msgspec.to_builtins(apps.listing(broker))})

    def allow(request: Request, body: bytes) -> Response:
        asked = parsed(body, Platforms, "platforms")
        return answer(msgspec.to_builtins(apps.allow(broker, request.path_params["id"], asked.platforms)))

    def resources(request: Request, body: bytes) -> Response:
        return answer({"resources": apps.resources(broker, request.path_params["id"])})

    def add_release(request: Request, body: bytes) -> Response:
        return answer({"manifest_digest": apps.add_release(broker, request.path_params["id"], body)})

    def revoke(request: Request, body: bytes) -> Response:
        apps.revoke_release(broker, request.path_params["id"], request.path_params["digest"])
        return answer({"manifest_digest": request.path_params["digest"], "state": "revoked"})

    def reference(request: Request, body: bytes) -> Response:
        apps.add_reference(broker, parsed(body, ReferenceValues, "reference values"))
        return answer({})

    def references(request: Request, body: bytes) -> Response:
        return answer({"reference_values": msgspec.to_builtins(apps.references(broker))})

    def anchor(request: Request, body: bytes) -> Response:
        asked = parsed(body, NewAnchor, "anchor")
        return answer({"fingerprint": apps.add_anchor(broker, asked.anchor())})

    def decisions(request: Request, body: bytes) -> Response:
        limit = request.query_params.get("limit", "100")
        if not limit.isdigit() or not 1 <= int(limit[:6]) <= 10000:
            raise Malformed("limit: a number from 1 to 10000 is wanted")
        return answer({"decisions": apps.decisions(broker, int(limit), request.query_params.get("app"))})

    def closed(act: Callable[[Request, bytes], Response]) -> Endpoint:
        return route(LIMIT, act, gate=lambda request: demand(broker, request))

    base = "/casemate/v0/admin"
    return [
        Route(f"{base}/apps", closed(found), methods=["POST"]),
        Route(f"{base}/apps", closed(listing), methods=["GET"]),
        Route(f"{base}/apps/{{id}}/platforms", closed(allow), methods=["POST"]),
        Route(f"{base}/apps/{{id}}/resources", closed(resources), methods=["GET"]),
        Route(f"{base}/apps/{{id}}/releases", closed(add_release), methods=["POST"]),
        Route(f"{base}/apps/{{id}}/releases/{{digest}}/revoke", closed(revoke), methods=["POST"]),
        Route(f"{base}/reference-values", closed(reference), methods=["POST"]),
        Route(f"{base}/reference-values", closed(references), methods=["GET"]),
        Route(f"{base}/anchors", closed(anchor), methods=["POST"]),
        Route(f"{base}/decisions", closed(decisions), methods=["GET"]),
    ]
