"""The lock on an admin's route: each one names its act, and whose thing the act is on.

`closed` is the only way to make an admin's route; a test walks over all routes and finds those without a lock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from casemate.api.answers import Endpoint, route
from casemate.broker import access

if TYPE_CHECKING:
    from casemate.broker.assemble import Broker

LIMIT = 16 << 20
Scope = Callable[["Broker", Request, str], access.Admin]


def whole(broker: Broker, request: Request, act: str) -> access.Admin:
    """The act is on the broker itself: for its own admins."""
    return access.demand(broker, request, act, tenant=None)


def own(broker: Broker, request: Request, act: str) -> access.Admin:
    """Admins of any tenant may come in; the handler keeps to `request.state.admin.tenant` or calls `access.demand`."""
    return access.admit(broker, request, act)


def of_app(broker: Broker, request: Request, act: str) -> access.Admin:
    """The act is on the app in the path (`{id}`) or in the query (`app=`)."""
    app_id = request.path_params.get("id") or request.query_params.get("app", "")
    return access.demand_app(broker, request, act, str(app_id))


def closed(
    broker: Broker, act: str, handle: Callable[[Request, bytes], Response], *, scope: Scope, limit: int = LIMIT
) -> Endpoint:
    """An endpoint for admins who may do `act`; they are asked before the body is read. `request.state.admin` is set."""
    endpoint = route(limit, handle, gate=lambda request: _ask(scope, broker, request, act))
    endpoint.access = (act, scope)  # type: ignore[attr-defined] # for the test that walks over all routes
    return endpoint


def _ask(scope: Scope, broker: Broker, request: Request, act: str) -> None:
    scope(broker, request, act)
