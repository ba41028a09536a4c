"""The transparency log (C2SP tlog-tiles) under `/casemate/v0/log`, and receipts under `/casemate/v0/receipts`.

Everybody may read the log: its entries are commitments. A receipt opens one entry, for whoever knows its id. Auditors
read the receipts of a period.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from casemate.api.access import closed, own, whole
from casemate.api.answers import answer, route
from casemate.api.numbers import number
from casemate.broker import access, journal, receipts
from casemate.ledger import history, tiles

if TYPE_CHECKING:
    from casemate.broker.assemble import Broker

FOREVER = "public, max-age=31536000, immutable"


def routes(broker: Broker) -> list[BaseRoute]:
    """The log's routes."""

    def checkpoint(request: Request, body: bytes) -> Response:
        text = receipts.checkpoint(broker)
        return Response(text, media_type="text/plain", headers={"Cache-Control": "no-store"})

    def tile(request: Request, body: bytes) -> Response:
        level, number, width = tiles.parse_path(request.path_params["path"])
        data = receipts.tile(broker, level, number, width)
        return Response(data, media_type="application/octet-stream", headers={"Cache-Control": FOREVER})

    def keys(request: Request, body: bytes) -> Response:
        return answer(receipts.keys(broker).as_document())

    def receipt(request: Request, body: bytes) -> Response:
        found = receipts.receipt(broker, request.path_params["id"])
        return answer(found.as_document(), **{"Cache-Control": "no-store"})

    def rotate(request: Request, body: bytes) -> Response:
        return answer({"vkey": journal.change_log_key(broker, who=request.state.admin.who)})

    base = "/casemate/v0"
    return [
        Route(f"{base}/log/checkpoint", route(0, checkpoint), methods=["GET"]),
        Route(f"{base}/log/tile/{{path:path}}", route(0, tile), methods=["GET"]),
        Route(f"{base}/log/keys", route(0, keys), methods=["GET"]),
        Route(f"{base}/receipts/{{id}}", route(0, receipt), methods=["GET"]),
        Route(f"{base}/admin/log/rotate", closed(broker, "key.rotate", rotate, scope=whole), methods=["POST"]),
        Route(f"{base}/admin/receipts", closed(broker, "receipt.read", _period(broker), scope=own), methods=["GET"]),
    ]


def _period(broker: Broker) -> Callable[[Request, bytes], Response]:
    def period(request: Request, body: bytes) -> Response:
        asked, tenant = request.query_params, request.state.admin.tenant
        if tenant is None or asked.get("tenant", tenant) != tenant:
            tenant = asked.get("tenant")
            access.demand(broker, request, "receipt.read", tenant=tenant)
        found = receipts.period(
            broker,
            history.millis(asked.get("since"), "since"),
            history.millis(asked.get("until"), "until"),
            after=_number(asked.get("after", "-1"), "after"),
            limit=_number(asked.get("limit", str(receipts.MAX_PERIOD)), "limit"),
            app_id=asked.get("app"),
            tenant=tenant,
        )
        return answer({"receipts": [one.as_document() for one in found]}, **{"Cache-Control": "no-store"})

    return period


def _number(text: str, name: str) -> int:
    return -1 if text == "-1" else number(text, name, 0, 10**18)
