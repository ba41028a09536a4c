"""The admin's routes on what the broker itself trusts and has decided; those on apps are in `apps`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from casemate.api import apps as app_routes
from casemate.api.access import closed, whole
from casemate.api.answers import answer, parsed
from casemate.broker import access, apps
from casemate.errors import Malformed
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


def demand(broker: Broker, request: Request) -> None:
    """Refuse whoever is not an operator of the whole broker."""
    access.demand(broker, request, "resource.put", tenant=None)


def routes(broker: Broker) -> list[BaseRoute]:
    """Every admin's route; each is closed to whoever may not do its act."""

    def reference(request: Request, body: bytes) -> Response:
        apps.add_reference(broker, parsed(body, ReferenceValues, "reference values"))
        return answer({})

    def references(request: Request, body: bytes) -> Response:
        return answer({"reference_values": msgspec.to_builtins(apps.references(broker))})

    def anchor(request: Request, body: bytes) -> Response:
        asked = parsed(body, NewAnchor, "anchor")
        return answer({"fingerprint": apps.add_anchor(broker, asked.anchor())})

    def decisions(request: Request, body: bytes) -> Response:
        limit = request.query_params.get("limit", "100")
        if not limit.isdigit() or not 1 <= int(limit[:6]) <= 10000:
            raise Malformed("limit: a number from 1 to 10000 is wanted")
        return answer({"decisions": apps.decisions(broker, int(limit), request.query_params.get("app"))})

    values = f"{BASE}/reference-values"
    return [
        *app_routes.routes(broker),
        Route(values, closed(broker, "reference.add", reference, scope=whole), methods=["POST"]),
        Route(values, closed(broker, "reference.list", references, scope=whole), methods=["GET"]),
        Route(f"{BASE}/anchors", closed(broker, "anchor.add", anchor, scope=whole), methods=["POST"]),
        Route(f"{BASE}/decisions", closed(broker, "decision.list", decisions, scope=whole), methods=["GET"]),
    ]
