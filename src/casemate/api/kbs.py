"""The KBS protocol's routes (RCAR 0.4.0): `/kbs/v0/auth`, `/attest` and `/resource/{repo}/{type}/{tag}`."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from casemate.api.access import closed, of_resource
from casemate.api.answers import RECEIPT_HEADER, answer, long, parsed, route
from casemate.broker import again, decide, journal, leases, repositories, resources, secrets, sessions
from casemate.broker.refusals import NoPath, Unauthenticated
from casemate.broker.sessions import Session
from casemate.errors import Malformed
from casemate.release.session import COOKIE, LEASE_HEADER, LEASE_ID_HEADER, SALT_HEADER
from casemate.schema.kbs import Attestation, AuthRequest
from casemate.wire.encoding import b64

if TYPE_CHECKING:
    from casemate.broker.assemble import Broker

RESOURCE = "/kbs/v0/resource/{repo}/{type}/{tag}"
AUTH_LIMIT = 64 << 10
ATTEST_LIMIT = 8 << 20
VERSION_HEADER = "Casemate-Version"
_VERSION = re.compile(r'(?:W/)?"([0-9]{1,9})"')


def session(broker: Broker, request: Request) -> Session:
    """The attested session of a request: the cookie's first (as the peers do), else the bearer token's."""
    with journal.counted(broker, "session"):
        found = _session(broker, request)
    request.state.session = found  # `api.gate` looks whether there is one
    return found


def _session(broker: Broker, request: Request) -> Session:
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
        if (token := again.token(broker, cookie := request.cookies.get(COOKIE, ""))) is not None:
            request.state.session = True
            return _with_cookie(answer({"token": token}), cookie, broker.settings.token_seconds)
        try:
            said = parsed(body, Attestation, "attestation")
            renews = leases.named(request.headers.get(LEASE_ID_HEADER, ""))
            admitted = decide.attest(broker, cookie, said, renews)
        except Malformed as error:
            decide.wasted(broker, cookie, error)
            raise
        request.state.session = True  # one that begins now: see `api.gate`
        held = {LEASE_ID_HEADER: admitted.lease, LEASE_HEADER: str(admitted.lease_seconds)} if admitted.lease else {}
        response = answer({"token": admitted.token}, **{RECEIPT_HEADER: admitted.receipt, **held})
        return _with_cookie(response, admitted.cookie, broker.settings.token_seconds)

    def read(request: Request, body: bytes) -> Response:
        grant = decide.release(
            broker, session(broker, request), _path(request), _known(request), _wanted(request), query=_query(request)
        )
        headers = {VERSION_HEADER: str(grant.version), "ETag": f'"{grant.version}"', "Cache-Control": "no-store"}
        headers[LEASE_HEADER] = str(grant.lease)
        if grant.sealed is None:
            return Response(status_code=304, headers=headers)
        return answer(grant.sealed, **headers, **{RECEIPT_HEADER: grant.receipt})

    def begun(request: Request) -> None:
        if again.token(broker, cookie := request.cookies.get(COOKIE, "")) is None:
            decide.begun(broker, cookie, unspent=long(request, ATTEST_LIMIT))

    return [
        Route("/kbs/v0/auth", route(AUTH_LIMIT, auth), methods=["POST"]),
        Route("/kbs/v0/attest", route(ATTEST_LIMIT, attest, gate=begun), methods=["POST"]),
        Route(RESOURCE, route(0, read), methods=["GET"]),
        *_changing(broker),
    ]


def _changing(broker: Broker) -> list[BaseRoute]:
    """What admins may do at the guests' path of a resource."""

    def write(request: Request, body: bytes) -> Response:
        path, who, window = _path(request), request.state.admin.who, seconds(request, "window")
        app_id = request.query_params.get("app") or repositories.owner(broker, path, who)
        version = secrets.put(broker, app_id, path, body, who=who, window=window)
        return answer({"version": version}, **{VERSION_HEADER: str(version)})

    def delete(request: Request, body: bytes) -> Response:
        path, who, later = _path(request), request.state.admin.who, seconds(request, "in")
        if later is not None:
            return answer({"purged": secrets.schedule(broker, path, later, who=who)})
        secrets.delete(broker, path, who=who)
        return answer({})

    return [
        Route(
            RESOURCE,
            closed(broker, "resource.put", write, scope=of_resource, limit=resources.MAX_VALUE),
            methods=["POST"],
        ),
        Route(RESOURCE, closed(broker, "resource.delete", delete, scope=of_resource, limit=0), methods=["DELETE"]),
    ]


def _path(request: Request) -> str:
    try:
        return resources.path_of(*(request.path_params[part] for part in ("repo", "type", "tag")))
    except Malformed as error:
        raise NoPath(str(error)) from error


def _known(request: Request) -> int | None:
    found = _VERSION.fullmatch(request.headers.get("if-none-match", ""))
    return int(found[1]) if found else None


def seconds(request: Request, name: str) -> int | None:
    """A number of seconds in the query; None without it."""
    found = request.query_params.get(name)
    if found is not None and not re.fullmatch(r"[0-9]{1,9}", found):
        raise Malformed(f"{name}: a number of seconds is wanted")
    return None if found is None else int(found)


def _wanted(request: Request) -> int | None:
    """The version that is asked for: `?version=` or the header; None for the newest."""
    found = request.query_params.get("version", request.headers.get(VERSION_HEADER, ""))
    if found and not re.fullmatch(r"[0-9]{1,9}", found):
        raise Malformed("version: a number is wanted")
    return int(found) if found else None


def _query(request: Request) -> dict[str, str]:
    """The query for resource policies: a name once, as short as a policy needs."""
    return {name[:256]: value[:1024] for name, value in list(request.query_params.items())[:32]}


def _with_cookie(response: Response, value: str, seconds: int) -> Response:
    response.set_cookie(COOKIE, value, max_age=seconds, path="/", secure=True, httponly=True, samesite="strict")
    return response
