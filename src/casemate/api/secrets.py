"""Routes on secrets' versions, leases and the master key, for admins; storing and deleting are in `kbs`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from casemate.api.access import closed, of_app, of_query, of_resource, own, who, whole
from casemate.api.answers import answer, parsed, route
from casemate.api.kbs import session
from casemate.api.numbers import number
from casemate.broker import leases, resources, rewrap, secrets

if TYPE_CHECKING:
    from casemate.broker.assemble import Broker

BASE = "/casemate/v0/admin"
_MOST = 10_000


class Holders(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many guests of an app may hold a lease at a time; null for any number."""

    max_holders: int | None


class Ending(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which leases end: those of a tenant (by default the admin's own, or all) that fit everything that is given."""

    app: str | None = None
    tee: str | None = None
    lease: str | None = None


class Step(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where to go on, as the step before said, and how many values to take."""

    after: str = ""
    limit: int = 200


def routes(broker: Broker) -> list[BaseRoute]:
    """The routes; each but a guest's own is closed to whoever may not do its act."""

    def versions(request: Request, body: bytes) -> Response:
        return answer(secrets.versions(broker, _path(request)))

    def undelete(request: Request, body: bytes) -> Response:
        secrets.undelete(broker, _path(request), who=who(request))
        return answer({})

    def holders(request: Request, body: bytes) -> Response:
        most = parsed(body, Holders, "holders").max_holders
        leases.set_limit(broker, request.path_params["id"], most, who=who(request))
        return answer({"max_holders": most})

    def listing(request: Request, body: bytes) -> Response:
        limit = number(request.query_params.get("limit", "100"), "limit", 1, _MOST)
        app_id, tenant = request.query_params.get("app"), request.state.tenant
        return answer({"leases": leases.listing(broker, app_id=app_id, tenant=tenant, limit=limit)})

    def end(request: Request, body: bytes) -> Response:
        asked = parsed(body, Ending, "leases")
        chosen = {"app_id": asked.app, "tee": asked.tee, "lease": asked.lease, "tenant": request.state.tenant}
        return answer({"ended": leases.end(broker, who=who(request), **chosen)})

    def masters(request: Request, body: bytes) -> Response:
        return answer(rewrap.state(broker))

    def step(request: Request, body: bytes) -> Response:
        asked = parsed(body, Step, "step")
        return answer(rewrap.step(broker, asked.after, asked.limit, who=who(request)))

    def give_back(request: Request, body: bytes) -> Response:
        leases.release(broker, session(broker, request))
        return answer({})

    one, master = f"{BASE}/resources/{{repo}}/{{type}}/{{tag}}", f"{BASE}/master"
    return [
        Route("/casemate/v0/lease", route(0, give_back), methods=["DELETE"]),
        Route(f"{one}/versions", closed(broker, "resource.list", versions, scope=of_resource), methods=["GET"]),
        Route(f"{one}/undelete", closed(broker, "resource.schedule", undelete, scope=of_resource), methods=["POST"]),
        Route(f"{BASE}/apps/{{id}}/holders", closed(broker, "app.holders", holders, scope=of_app), methods=["POST"]),
        Route(f"{BASE}/leases", closed(broker, "lease.list", listing, scope=own), methods=["GET"]),
        Route(f"{BASE}/leases/end", closed(broker, "lease.end", end, scope=of_query), methods=["POST"]),
        Route(master, closed(broker, "key.list", masters, scope=whole), methods=["GET"]),
        Route(f"{master}/rewrap", closed(broker, "master.rewrap", step, scope=whole), methods=["POST"]),
    ]


def _path(request: Request) -> str:
    return resources.path_of(*(request.path_params[part] for part in ("repo", "type", "tag")))
