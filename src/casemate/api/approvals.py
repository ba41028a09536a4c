"""The admin's routes on changes that wait for a second owner."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route

from casemate.api.access import Lock, closed, own
from casemate.api.answers import answer, carried, parsed
from casemate.broker import approvals
from casemate.broker.approvals import Change
from casemate.drivers.rego import Compiling, Crowded
from casemate.errors import CasemateError, Unavailable

if TYPE_CHECKING:
    from casemate.broker.assemble import Broker

BASE = "/casemate/v0/admin/approvals"
_LIMIT = 4096


class Approving(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The digest of the change that the approver has looked at."""

    digest: str


def routes(broker: Broker) -> list[BaseRoute]:
    """The routes on approvals. A change is its tenant's; deciding is for owners of that tenant or of the broker."""

    def listing(request: Request, body: bytes) -> Response:
        return answer({"approvals": approvals.listing(broker, request.state.admin)})

    def show(request: Request, body: bytes) -> Response:
        return answer(approvals.show(broker, request.path_params["number"], request.state.admin))

    def approve(request: Request, body: bytes) -> Response:
        asked, number = parsed(body, Approving, "approval"), request.path_params["number"]
        change = approvals.approve(broker, number, asked.digest, request.state.admin)
        try:
            done = _carried_out(broker, request, change)
        except _NoTurn as error:
            approvals.reopen(broker, number, change, request.state.admin)
            hint = "approve it again in a moment"
            raise Unavailable(f"nothing was done, the change waits still: {error}", hint=hint) from None
        said = json.loads(bytes(done.body) or b"{}")
        approvals.finish(broker, number, done.status_code, said.get("detail", ""))
        found = approvals.show(broker, number, request.state.admin)
        return answer({**found, "answer": said})

    def reject(request: Request, body: bytes) -> Response:
        return answer(approvals.reject(broker, request.path_params["number"], request.state.admin))

    one = f"{BASE}/{{number}}"
    return [
        Route(BASE, closed(broker, "approval.list", listing, scope=own, limit=0), methods=["GET"]),
        Route(one, closed(broker, "approval.list", show, scope=own, limit=0), methods=["GET"]),
        Route(f"{one}/approve", closed(broker, "approval.approve", approve, scope=own, limit=_LIMIT), methods=["POST"]),
        Route(f"{one}/reject", closed(broker, "approval.reject", reject, scope=own, limit=_LIMIT), methods=["POST"]),
    ]


class _NoTurn(Exception):
    """A change found no turn; nothing of it was done."""


def _carried_out(broker: Broker, request: Request, change: Change) -> Response:
    """Do what was asked for, by the route that it was asked of, as who asked."""
    scope: dict[str, Any] = {
        "type": "http",
        "method": change.method,
        "path": change.path,
        "root_path": "",
        "query_string": change.query.encode(),
        "headers": [],
        "app": request.app,
        "client": None,
        "state": {},
    }
    for candidate in request.app.routes:
        matched, more = candidate.matches(scope)
        lock = getattr(getattr(candidate, "endpoint", None), "access", None)
        if matched is Match.FULL and isinstance(lock, Lock) and lock.act == change.act:
            inner = Request({**scope, **more})
            inner.state.admin, inner.state.approved = change.admin, True
            busy: list[Unavailable] = []
            done = carried(_again(broker, lock, busy), inner, change.body)
            if busy:
                raise _NoTurn(str(busy[0]))
            return done
    raise CasemateError("the change can't be carried out by this version")


def _again(broker: Broker, lock: Lock, busy: list[Unavailable]) -> Any:
    """What carries it out. Errors that say that nothing was done go to `busy`: any other 503 may come too late."""

    def act(request: Request, body: bytes) -> Response:
        lock.scope(broker, request, lock.act)  # the thing may have gone, or become another's
        try:
            return lock.handle(request, body)
        except (Crowded, Compiling) as error:
            busy.append(error)
            return Response(status_code=503)

    return act
