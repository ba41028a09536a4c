"""The admin's routes on tenants and admins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from casemate.api.access import closed, held_acts, of_query, of_tenant, own, whole
from casemate.api.answers import answer, parsed
from casemate.broker import access, admins, tenants
from casemate.broker.oidc import WHOLE
from casemate.broker.refusals import Missing
from casemate.drivers.store.accounts import Account
from casemate.errors import Malformed

if TYPE_CHECKING:
    from casemate.broker.assemble import Broker

BASE = "/casemate/v0/admin"
_LIMIT = 64 << 10


class NewTenant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new tenant's name."""

    name: str


def routes(broker: Broker) -> list[BaseRoute]:
    """The routes on tenants and on admins."""
    return [*_tenants(broker), *_admins(broker)]


def of_admin(broker: Broker, request: Request, act: str) -> access.Admin:
    """The act is on the recorded admin that `who=` names."""
    found = access.admit(broker, request, act)
    account = admins.named(broker, request.query_params.get("who", ""))
    missing = Missing("no admin of that name", hint="casemate admin list")
    if account is None:
        raise missing
    if not found.sees(account.tenant):
        access.demand_seen(broker, request, act, missing)
    request.state.tenant = account.tenant
    return found


def _tenants(broker: Broker) -> list[BaseRoute]:
    def listing(request: Request, body: bytes) -> Response:
        admin: access.Admin = request.state.admin
        found = tenants.listing(broker)
        return answer({"tenants": [_tenant(name, found[name]) for name in found if admin.sees(name)]})

    def add(request: Request, body: bytes) -> Response:
        name = parsed(body, NewTenant, "tenant").name
        tenants.add(broker, name, who=request.state.admin.who)
        return answer(_tenant(name, tenants.settings(broker, name)))

    def change(request: Request, body: bytes) -> Response:
        name, asked = request.state.tenant, parsed(body, tenants.Changes, "tenant settings")
        if asked.two_person is not msgspec.UNSET and not {*_acts(request)}.issuperset(asked.two_person):
            raise Malformed("two_person: acts that change something are wanted: " + ", ".join(_acts(request)))
        return answer(_tenant(name, tenants.change(broker, name, asked, who=request.state.admin.who)))

    return [
        Route(f"{BASE}/tenants", closed(broker, "tenant.list", listing, scope=own, limit=0), methods=["GET"]),
        Route(f"{BASE}/tenants", closed(broker, "tenant.add", add, scope=whole, limit=_LIMIT), methods=["POST"]),
        Route(
            f"{BASE}/tenants/{{tenant}}",
            closed(broker, "tenant.set", change, scope=of_tenant, limit=_LIMIT),
            methods=["POST"],
        ),
    ]


def _admins(broker: Broker) -> list[BaseRoute]:
    def me(request: Request, body: bytes) -> Response:
        admin: access.Admin = request.state.admin
        return answer(msgspec.to_builtins(admin))

    def listing(request: Request, body: bytes) -> Response:
        admin: access.Admin = request.state.admin
        return answer({"admins": [_account(one) for one in admins.listing(broker) if admin.sees(one.tenant)]})

    def add(request: Request, body: bytes) -> Response:
        asked = parsed(body, admins.NewAdmin, "admin")
        return answer(_account(admins.add(broker, request.state.tenant, asked, by=request.state.admin)))

    def remove(request: Request, body: bytes) -> Response:
        who = request.query_params.get("who", "")
        admins.remove(broker, who, by=request.state.admin.who)
        return answer({"who": who, "removed": True})

    return [
        Route(f"{BASE}/whoami", closed(broker, "admin.whoami", me, scope=own, limit=0), methods=["GET"]),
        Route(f"{BASE}/admins", closed(broker, "admin.list", listing, scope=own, limit=0), methods=["GET"]),
        Route(f"{BASE}/admins", closed(broker, "admin.set", add, scope=of_query, limit=_LIMIT), methods=["POST"]),
        Route(f"{BASE}/admins", closed(broker, "admin.set", remove, scope=of_admin, limit=0), methods=["DELETE"]),
    ]


def _acts(request: Request) -> list[str]:
    return sorted(act for act in held_acts(request.app.routes) if access.ROLES.get(act) != "auditor")


def _tenant(name: str | None, found: tenants.Tenant) -> dict[str, Any]:
    return {"tenant": name or WHOLE, **msgspec.to_builtins(found)}


def _account(found: Account) -> dict[str, Any]:
    shown = {"who": found.who, "role": found.role, "tenant": found.tenant, "known_by": found.known_by}
    return {**shown, "credential": found.credential, "created": found.created}
