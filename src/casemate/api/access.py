"""The lock on an admin's route: each one names its act, and whose thing the act is on.

`closed` is the only way to make an admin's route; a test walks over all routes and finds those without a lock. A change
that its tenant put under the two-person rule is kept (202) instead of carried out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from casemate.api.answers import Endpoint, route
from casemate.broker import access, approvals, tenants
from casemate.broker.refusals import Missing

if TYPE_CHECKING:
    from casemate.broker.assemble import Broker

LIMIT = 16 << 20
Handle = Callable[[Request, bytes], Response]
Scope = Callable[["Broker", Request, str], access.Admin]
Named = Callable[[Request, bytes], None]


class Lock(NamedTuple):
    """What `closed` knows of a route; `endpoint.access` holds it."""

    act: str
    scope: Scope
    handle: Handle


def whole(broker: Broker, request: Request, act: str) -> access.Admin:
    """The act is on the broker itself: for its own admins."""
    request.state.tenant = None
    return access.demand(broker, request, act, tenant=None)


def own(broker: Broker, request: Request, act: str) -> access.Admin:
    """Admins of any tenant may come in; the handler keeps to `request.state.admin.tenant` or calls `access.demand`."""
    found = access.admit(broker, request, act)
    named = request.query_params.get("tenant")
    request.state.tenant = tenants.name_of(named) if named and found.tenant is None else found.tenant
    return found


def of_query(broker: Broker, request: Request, act: str) -> access.Admin:
    """The act is on what `tenant=` names, by default on what is the admin's own: see `request.state.tenant`."""
    found = access.admit(broker, request, act)
    named = request.query_params.get("tenant")
    request.state.tenant = tenants.name_of(named) if named else found.tenant
    return access.demand(broker, request, act, tenant=request.state.tenant)


def of_tenant(broker: Broker, request: Request, act: str) -> access.Admin:
    """The act is on the tenant in the path (`{tenant}`, `*` for the broker itself)."""
    found = access.admit(broker, request, act)
    request.state.tenant = tenants.name_of(request.path_params["tenant"])
    if not found.sees(request.state.tenant):
        access.demand_seen(broker, request, act, Missing("no such tenant", hint="casemate tenant list"))
    return found


def of_app(broker: Broker, request: Request, act: str) -> access.Admin:
    """The act is on the app in the path (`{id}`) or in the query (`app=`)."""
    app_id = str(request.path_params.get("id") or request.query_params.get("app", ""))
    found = access.demand_app(broker, request, act, app_id)
    request.state.tenant = access.tenant_of_app(broker, app_id)
    return found


def of_resource(broker: Broker, request: Request, act: str) -> access.Admin:
    """The act is on the resource in the path. `app=` says whose it becomes when it is stored, and nothing else."""
    path = "/".join(str(request.path_params[part]) for part in ("repo", "type", "tag"))
    if act == "resource.put" and "app" in request.query_params:
        found = of_app(broker, request, act)
        access.demand_repo(broker, path, request.state.tenant)
        if access.tenant_of_path(broker, path) is None:
            return found
    found = access.demand_path(broker, request, act, path)
    request.state.tenant = access.tenant_of_path(broker, path)
    return found


def who(request: Request) -> str:
    """Who asks, for the journal."""
    return str(request.state.admin.who)


def closed(
    broker: Broker, act: str, handle: Handle, *, scope: Scope, limit: int = LIMIT, named: Named | None = None
) -> Endpoint:
    """An endpoint for admins who may do `act`; they are asked before the body is read. `request.state.admin` is set.

    `named` is for acts whose tenant stands in the body: it demands the act there and sets `request.state.tenant`, and
    `request.state.also` where the body makes it another act as well. The admins of one tenant hold a part of the
    threads at most: the next one waits for its turn (`api.crowd`).
    """
    askers = broker.policies.pool.askers

    def ask(request: Request) -> None:
        scope(broker, request, act)

    def guarded(request: Request, body: bytes) -> Response:
        if named is not None:
            named(request, body)
        with askers.one(f"{request.state.admin.tenant or ''} admins"):
            return _held(broker, request, act, body) or handle(request, body)

    endpoint = route(limit, guarded, gate=ask)
    endpoint.access = Lock(act, scope, handle)  # type: ignore[attr-defined] # the test and approvals look for it
    return endpoint


def held_acts(routes: Iterable[BaseRoute]) -> set[str]:
    """Acts that the two-person rule can hold, by the routes that there are."""
    there = [(one, getattr(one.endpoint, "access", None)) for one in routes if isinstance(one, Route)]
    changing = {lock.act for one, lock in there if isinstance(lock, Lock) and (one.methods or set()) - {"GET", "HEAD"}}
    return {act for act in changing if not act.startswith("approval.")}


def _held(broker: Broker, request: Request, act: str, body: bytes) -> Response | None:
    """The answer to a change that waits for a second owner; None when it needs none."""
    if request.method in ("GET", "HEAD") or act.startswith("approval."):
        return None
    settled = tenants.settings(broker, request.state.tenant)
    if not any(map(settled.holds, (act, *getattr(request.state, "also", ())))):
        return None
    admin: access.Admin = request.state.admin
    change = approvals.Change(
        act=act,
        tenant=request.state.tenant,
        who=admin.who,
        role=admin.role,
        scope=admin.tenant,
        method=request.method,
        path=request.scope["path"],
        query=request.scope["query_string"].decode("ascii", "replace"),
        body=body,
        salt=approvals.salt(),
    )
    waits = approvals.facts(approvals.hold(broker, admin, change))
    return Response(json.dumps(waits).encode(), 202, media_type="application/json")
