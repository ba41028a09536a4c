"""The admin's routes on apps: founding, platforms, resources' names, releases."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from casemate.api.access import closed, of_app, own, who
from casemate.api.answers import answer, parsed
from casemate.broker import access, apps, tenants
from casemate.errors import Malformed
from casemate.schema.endorsements import PRODUCTION

if TYPE_CHECKING:
    from casemate.broker.assemble import Broker

BASE = "/casemate/v0/admin/apps"


class Founding(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new app. Other platforms than the default are an owner's choice, as they are later."""

    tenant: str
    name: str
    platforms: tuple[str, ...] = (PRODUCTION,)


class Platforms(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The platform classes that an app allows."""

    platforms: tuple[str, ...]


def routes(broker: Broker) -> list[BaseRoute]:
    """The routes on apps; each app's are for the admins of its tenant."""

    def named(request: Request, body: bytes) -> None:
        asked = parsed(body, Founding, "app")
        tenant = asked.tenant
        if request.query_params.get("tenant", tenant) != tenant:
            raise Malformed("tenant: the query names another one than the app")
        access.demand(broker, request, "app.found", tenant=tenant)
        if set(asked.platforms) != {PRODUCTION}:
            access.demand(broker, request, "app.platforms", tenant=tenant)
            request.state.also = ("app.platforms",)
        request.state.tenant = tenant

    def found(request: Request, body: bytes) -> Response:
        asked = parsed(body, Founding, "app")
        admin = access.demand(broker, request, "app.found", tenant=asked.tenant)
        new = admin.tenant is None and admin.role == "owner" and not tenants.settings(broker, None).holds("tenant.add")
        known = apps.found(broker, asked.tenant, asked.name, asked.platforms, who=admin.who, new_tenant=new)
        return answer({"app_id": known.app_id, "founding": msgspec.to_builtins(known.founding)})

    def listing(request: Request, body: bytes) -> Response:
        admin: access.Admin = request.state.admin
        seen = [known for known in apps.listing(broker) if admin.sees(known.founding.tenant)]
        return answer({"apps": msgspec.to_builtins(seen)})

    def allow(request: Request, body: bytes) -> Response:
        asked = parsed(body, Platforms, "platforms")
        return answer(
            msgspec.to_builtins(apps.allow(broker, request.path_params["id"], asked.platforms, who=who(request)))
        )

    def resources(request: Request, body: bytes) -> Response:
        return answer({"resources": apps.resources(broker, request.path_params["id"])})

    def add_release(request: Request, body: bytes) -> Response:
        return answer({"manifest_digest": apps.add_release(broker, request.path_params["id"], body, who=who(request))})

    def revoke(request: Request, body: bytes) -> Response:
        app_id, digest = request.path_params["id"], request.path_params["digest"]
        apps.revoke_release(broker, app_id, digest, who=who(request))
        return answer({"manifest_digest": digest, "state": "revoked"})

    one = f"{BASE}/{{id}}"
    return [
        Route(BASE, closed(broker, "app.found", found, scope=own, named=named), methods=["POST"]),
        Route(BASE, closed(broker, "app.list", listing, scope=own), methods=["GET"]),
        Route(f"{one}/platforms", closed(broker, "app.platforms", allow, scope=of_app), methods=["POST"]),
        Route(f"{one}/resources", closed(broker, "resource.list", resources, scope=of_app), methods=["GET"]),
        Route(f"{one}/releases", closed(broker, "release.add", add_release, scope=of_app), methods=["POST"]),
        Route(
            f"{one}/releases/{{digest}}/revoke",
            closed(broker, "release.revoke", revoke, scope=of_app),
            methods=["POST"],
        ),
    ]
