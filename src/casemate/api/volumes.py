"""Volumes of attested guests: `/casemate/v0/volumes/{name}/open` and `/initialised`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from casemate.api.answers import RECEIPT_HEADER, answer, parsed, route
from casemate.api.kbs import session
from casemate.broker import volumes

if TYPE_CHECKING:
    from casemate.broker.assemble import Broker

LIMIT = 128 << 10


class Opening(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`size` of the disk in bytes."""

    size: int


class Initialised(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The format grant and the guest's record of what it made."""

    grant: str
    record: dict[str, Any]


def routes(broker: Broker) -> list[BaseRoute]:
    """The volume routes."""

    def open_(request: Request, body: bytes) -> Response:
        found = session(broker, request)
        asked = parsed(body, Opening, "volume")
        sealed, receipt = volumes.open_(broker, found, request.path_params["name"], asked.size)
        return answer(sealed, **{RECEIPT_HEADER: receipt})

    def initialised(request: Request, body: bytes) -> Response:
        found = session(broker, request)
        told = parsed(body, Initialised, "volume")
        receipt = volumes.initialised(broker, found, request.path_params["name"], told.grant, told.record)
        return answer({}, **{RECEIPT_HEADER: receipt})

    return [
        Route("/casemate/v0/volumes/{name}/open", route(LIMIT, open_), methods=["POST"]),
        Route("/casemate/v0/volumes/{name}/initialised", route(LIMIT, initialised), methods=["POST"]),
    ]
