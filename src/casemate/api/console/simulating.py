"""The page that tries a policy on recorded attestations, before anybody sets it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from casemate.api import trials
from casemate.api.console import logins, pages
from casemate.api.console.pages import BASE
from casemate.broker import access, policybook, replay, tenants
from casemate.errors import Malformed

if TYPE_CHECKING:
    from casemate.broker.assemble import Broker

PATH = f"{BASE}/simulate"
LIMIT = 1 << 20  # a policy of 256 KiB, as forms are encoded
SHOWN = 200
_PATHS = 20


def routes(broker: Broker) -> list[BaseRoute]:
    """The form, with a stored policy to begin with; and what came of it."""

    def form(request: Request, body: bytes) -> Response:
        chosen = {name: request.query_params.get(name, "") for name in ("policy", "tenant")}
        tenant = _tenant(broker, request, chosen["tenant"])
        text = ""
        if chosen["policy"]:
            kind, _, name = chosen["policy"].partition("/")
            text = str(policybook.read(broker, tenant or "", kind, name)["text"])
        return _page(broker, request, tenant, {"policy": chosen["policy"], "text": text, "paths": ""})

    def run(request: Request, body: bytes) -> Response:
        sent = pages.fields(request, body)
        logins.demand_form(request.state.login, sent.get("csrf", ""))
        given = {name: sent.get(name, "") for name in ("policy", "text", "paths")}
        tenant = _tenant(broker, request, sent.get("tenant", ""))
        kind, _, name = given["policy"].partition("/")
        now, paths = broker.clock(), given["paths"].split()[:_PATHS]
        try:
            found = replay.simulate(broker, tenant, kind, name, given["text"].replace("\r\n", "\n"),
                                    since=now - timedelta(days=7), until=now, paths=paths)  # fmt: skip
        except Malformed as error:
            return _page(broker, request, tenant, given, status=400, wrong=str(error))
        return _page(broker, request, tenant, given, found=found)

    ask = pages.page(broker, "policy.list", form)
    do = pages.page(broker, "policy.simulate", run, limit=LIMIT, form=True, lock=trials.closed)
    return [
        Route(PATH, ask, methods=["GET"], include_in_schema=False),
        Route(PATH, do, methods=["POST"], include_in_schema=False),
    ]


def _tenant(broker: Broker, request: Request, named: str) -> str | None:
    """Whose policy and attestations are meant: the admin's own tenant's, or the one that an admin of all names."""
    admin: access.Admin = request.state.admin
    tenant = tenants.name_of(named) if named else admin.tenant
    access.demand(broker, request, "policy.simulate", tenant=tenant)
    return tenant


def _page(
    broker: Broker,
    request: Request,
    tenant: str | None,
    given: dict[str, str],
    *,
    status: int = 200,
    wrong: str = "",
    found: dict[str, Any] | None = None,
) -> Response:
    names = [f"{one['kind']}/{one['name']}" for one in policybook.listing(broker, tenant or "")]
    admin: access.Admin = request.state.admin
    whose = sorted(name for name in tenants.listing(broker) if name) if admin.tenant is None else []
    changed = [
        {**one, "was": _words(one["before"]), "now": _words(one["after"])}
        for one in (found["changed"] if found else [])[:SHOWN]
    ]
    known = {"policies": names, "tenants": whose, "tenant": tenant or "", "wrong": wrong, "found": found}
    return pages.render(request, "simulate.html", "Simulate a policy", status, changed=changed, **given, **known)


def _words(told: dict[str, Any]) -> str:
    if "error" in told:
        return f"no answer: {told['error']}"
    if "allow" in told:
        return "allowed" if told["allow"] else "not allowed"
    vector = ", ".join(f"{name} {value}" for name, value in told["vector"].items() if value)
    return f"{told['status']} ({vector or 'nothing claimed'})"
