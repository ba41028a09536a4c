"""The KBS protocol's routes (RCAR 0.4.0): `/kbs/v0/auth`, `/attest` and `/resource/{repo}/{type}/{tag}`."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from casemate.api import admin
from casemate.api.answers import RECEIPT_HEADER, answer, parsed, route
from casemate.broker import decide, resources, sessions
from casemate.broker.refusals import Unauthenticated
from casemate.broker.sessions import Session
from casemate.release.session import COOKIE, SALT_HEADER
from casemate.schema.kbs import Attestation, AuthRequest
from casemate.wire.encoding import b64

if TYPE_CHECKING:
    from casemate.broker.assemble import Broker

AUTH_LIMIT = 64 << 10
ATTEST_LIMIT = 8 << 20
VERSION_HEADER = "Casemate-Version"
_VERSION = re.compile(r'(?:W/)?"([0-9]{1,9})"')


def session(broker: Broker, request: Request) -> Session:
    """The attested session of a request: the cookie's first (as the peers do), else the bearer token's."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    bearer = token.strip() if scheme.lower() == "bearer" else ""
    cookie = request.cookies.get(COOKIE, "")
    if cookie:
        found = broker.cookies.open(cookie, broker.clock()) if not bearer else _quiet(broker, cookie)
        if isinstance(found, Session):
            return found
    if not bearer:
        raise sessions.absent()
    return broker.signer.session(bearer, broker.clock())


def _quiet(broker: Broker, cookie: str) -> object:
    """A cookie beside a token: when the cookie is no good, the token decides."""
    try:
        return broker.cookies.open(cookie, broker.clock())
    except Unauthenticated:
        return None


def routes(broker: Broker) -> list[BaseRoute]:
    """The protocol's routes."""

    def auth(request: Request, body: bytes) -> Response:
        asked = decide.request(broker, parsed(body, AuthRequest, "request"), os.urandom(32))
        response = answer({"nonce": asked.nonce, "extra-params": asked.extra}, **{SALT_HEADER: b64(asked.salt)})
        return _with_cookie(response, asked.cookie, broker.settings.challenge_seconds)

    def attest(request: Request, body: bytes) -> Response:
        said = parsed(body, Attestation, "attestation")
        admitted = decide.attest(broker, request.cookies.get(COOKIE, ""), said)
        response = answer({"token": admitted.token}, **{RECEIPT_HEADER: admitted.receipt})
        return _with_cookie(response, admitted.cookie, broker.settings.token_seconds)

    def read(request: Request, body: bytes) -> Response:
        grant = decide.release(broker, session(broker, request), _path(request), _known(request))
        headers = {VERSION_HEADER: str(grant.version), "ETag": f'"{grant.version}"', "Cache-Control": "no-store"}
        if grant.sealed is None:
            return Response(status_code=304, headers=headers)
        return answer(grant.sealed, **headers, **{RECEIPT_HEADER: grant.receipt})

    def write(request: Request, body: bytes) -> Response:
        version = resources.put(broker, request.query_params.get("app", ""), _path(request), body)
        return answer({"version": version}, **{VERSION_HEADER: str(version)})

    def delete(request: Request, body: bytes) -> Response:
        resources.delete(broker, _path(request))
        return answer({})

    def closed(request: Request) -> None:
        admin.demand(broker, request)

    def begun(request: Request) -> None:
        decide.begun(broker, request.cookies.get(COOKIE, ""))

    resource = "/kbs/v0/resource/{repo}/{type}/{tag}"
    return [
        Route("/kbs/v0/auth", route(AUTH_LIMIT, auth), methods=["POST"]),
        Route("/kbs/v0/attest", route(ATTEST_LIMIT, attest, gate=begun), methods=["POST"]),
        Route(resource, route(0, read), methods=["GET"]),
        Route(resource, route(resources.MAX_VALUE, write, gate=closed), methods=["POST"]),
        Route(resource, route(0, delete, gate=closed), methods=["DELETE"]),
    ]


def _path(request: Request) -> str:
    return resources.path_of(*(request.path_params[part] for part in ("repo", "type", "tag")))


def _known(request: Request) -> int | None:
    found = _VERSION.fullmatch(request.headers.get("if-none-match", ""))
    return int(found[1]) if found else None


def _with_cookie(response: Response, value: str, seconds: int) -> Response:
    response.set_cookie(COOKIE, value, max_age=seconds, path="/", secure=True, httponly=True, samesite="strict")
    return response
