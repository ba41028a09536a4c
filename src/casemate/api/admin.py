"""The admin's routes on what the broker itself trusts and has decided; those on apps are in `apps`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from casemate.api import approvals as approval_routes
from casemate.api import apps as app_routes
from casemate.api import tenants as tenant_routes
from casemate.api.access import closed, of_query, own, whole
from casemate.api.answers import answer, parsed
from casemate.api.numbers import number
from casemate.broker import access, apps, tenants, trust
from casemate.schema.endorsements import Anchor
from casemate.schema.reference import ReferenceValues
from casemate.wire.encoding import unb64

if TYPE_CHECKING:
    from casemate.broker.assemble import Broker

BASE = "/casemate/v0/admin"


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


def routes(broker: Broker) -> list[BaseRoute]:
    """Every admin's route; each is closed to whoever may not do its act."""

    def reference(request: Request, body: bytes) -> Response:
        asked = parsed(body, ReferenceValues, "reference values")
        trust.add_reference(broker, asked, tenant=request.state.tenant, by=request.state.admin)
        return answer({})

    def references(request: Request, body: bytes) -> Response:
        return answer({"reference_values": msgspec.to_builtins(trust.references(broker, request.state.tenant))})

    def anchor(request: Request, body: bytes) -> Response:
        asked = parsed(body, NewAnchor, "anchor")
        return answer({"fingerprint": trust.add_anchor(broker, asked.anchor(), who=request.state.admin.who)})

    def no_reference(request: Request, body: bytes) -> Response:
        name, tee = (request.query_params.get(part, "") for part in ("name", "tee"))
        tenant, who = request.state.tenant, request.state.admin.who
        return answer({"leases_ended": trust.remove_reference(broker, name, tee, tenant=tenant, who=who)})

    def no_anchor(request: Request, body: bytes) -> Response:
        fingerprint, who = str(request.path_params["id"]), request.state.admin.who
        return answer({"leases_ended": trust.remove_anchor(broker, fingerprint, who=who)})

    def decisions(request: Request, body: bytes) -> Response:
        limit = number(request.query_params.get("limit", "100"), "limit", 1, 10000)
        admin: access.Admin = request.state.admin
        app_id, most = request.query_params.get("app"), tenants.settings(broker, admin.tenant).max_decisions
        if app_id is not None:
            access.demand_app(broker, request, "decision.list", app_id)
        return answer({"decisions": apps.decisions(broker, min(limit, most), app_id, admin.tenant)})

    values = f"{BASE}/reference-values"
    return [
        *app_routes.routes(broker),
        *tenant_routes.routes(broker),
        *approval_routes.routes(broker),
        Route(values, closed(broker, "reference.add", reference, scope=of_query), methods=["POST"]),
        Route(values, closed(broker, "reference.list", references, scope=of_query), methods=["GET"]),
        Route(values, closed(broker, "reference.delete", no_reference, scope=of_query, limit=0), methods=["DELETE"]),
        Route(
            f"{BASE}/anchors/{{id}}",
            closed(broker, "anchor.delete", no_anchor, scope=whole, limit=0),
            methods=["DELETE"],
        ),
        Route(f"{BASE}/anchors", closed(broker, "anchor.add", anchor, scope=whole), methods=["POST"]),
        Route(f"{BASE}/decisions", closed(broker, "decision.list", decisions, scope=own), methods=["GET"]),
    ]
