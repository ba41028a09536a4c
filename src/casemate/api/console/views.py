"""The pages that only read: apps, decisions, what is trusted and when it expires, the log and its receipts."""

from __future__ import annotations

import json
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from casemate.api.console import pages
from casemate.api.console.pages import BASE
from casemate.broker import access, apps, receipts, rvps, tenants, trust
from casemate.broker.refusals import Missing
from casemate.drivers import collateral
from casemate.errors import CasemateError
from casemate.ledger import history, note
from casemate.ledger.receipt import Receipt

if TYPE_CHECKING:
    from casemate.broker.assemble import Broker

SHOWN = 100
MAX_APPS = 500
MAX_ENTRIES = 500
RECENT = 200  # entries of the log that are looked through for receipts
ANSWERS = {"": None, "yes": True, "no": False}


def routes(broker: Broker) -> list[BaseRoute]:
    """The routes of the pages."""

    def listing(request: Request, body: bytes) -> Response:
        admin: access.Admin = request.state.admin
        seen = [known for known in apps.listing(broker) if admin.sees(known.founding.tenant)]
        return pages.render(request, "apps.html", "Apps", apps=seen[:MAX_APPS], more=len(seen) > MAX_APPS)

    def app(request: Request, body: bytes) -> Response:
        app_id = str(request.path_params["id"])
        access.demand_app(broker, request, "release.list", app_id)
        known = apps.statement(broker, app_id)
        title = f"App {known.founding.name}"
        return pages.render(request, "app.html", title, app=known, resources=apps.resources(broker, app_id))

    def decisions(request: Request, body: bytes) -> Response:
        admin: access.Admin = request.state.admin
        app_id, asked = request.query_params.get("app", ""), request.query_params.get("allowed", "")
        allowed = ANSWERS.get(asked if asked in ANSWERS else "")
        if app_id:
            access.demand_app(broker, request, "decision.list", app_id)
        most = min(SHOWN, tenants.settings(broker, admin.tenant).max_decisions)
        found = apps.decisions(broker, most, app_id or None, admin.tenant, allowed)
        names = _names(broker, admin)
        given: dict[str, Any] = {"decisions": found, "names": names, "app_id": app_id, "allowed": asked, "most": most}
        return pages.render(request, "decisions.html", "Decisions", **given)

    def trust(request: Request, body: bytes) -> Response:
        return pages.render(request, "trust.html", "Reference values", **_trust(broker, request.state.admin))

    def log(request: Request, body: bytes) -> Response:
        text = receipts.checkpoint(broker)
        found = note.parse_checkpoint(note.split(text)[0])
        recent = _recent(broker, found.size, request.state.admin.tenant)
        keys = receipts.keys(broker).as_document()["keys"]
        given: dict[str, Any] = {"note": text, "size": found.size, "origin": found.origin, "root": found.root.hex()}
        return pages.render(request, "log.html", "Log", receipts=recent, keys=keys, **given)

    def receipt(request: Request, body: bytes) -> Response:
        number = request.query_params.get("id", "").strip()
        found = _brief(receipts.receipt(broker, number))
        _demand_own(broker, request.state.admin, found["fields"])
        return pages.render(request, "receipt.html", "Receipt", receipt=found)

    parts = {
        "/apps": ("app.list", listing),
        "/apps/{id}": ("release.list", app),
        "/decisions": ("decision.list", decisions),
        "/trust": ("reference.list", trust),
        "/log": ("log.read", log),
        "/log/receipt": ("receipt.read", receipt),
    }
    return [
        Route(BASE + path, pages.page(broker, act, handle), methods=["GET"], include_in_schema=False)
        for path, (act, handle) in parts.items()
    ]


def _names(broker: Broker, admin: access.Admin) -> dict[str, str]:
    """The names of the apps that an admin sees, by id."""
    seen = [known for known in apps.listing(broker) if admin.sees(known.founding.tenant)]
    return {known.app_id: f"{known.founding.tenant}/{known.founding.name}" for known in seen}


def _trust(broker: Broker, admin: access.Admin) -> dict[str, Any]:
    now = broker.clock()
    values: list[dict[str, Any]] = [
        {"name": one.name, "tee": one.tee, "values": one.values, "ends": pages.ending(one.expires, now)}
        for one in trust.references(broker, admin.tenant)
    ]
    registered: list[dict[str, Any]] = [
        {**one, "ends": pages.ending(datetime.fromisoformat(one["expires"]), now)}
        for one in rvps.listing(broker, admin.tenant or "")
    ]
    kept, trouble = _collateral(broker, now) if admin.tenant is None else ([], "")
    soon = [
        *({"what": f"reference values {one['name']} ({one['tee']})", **one["ends"]} for one in values),
        *({"what": f"registered value {one['id']}", **one["ends"]} for one in registered),
        *({"what": f"{one['kind']} {one['about']}", **one["ends"]} for one in kept),
    ]
    return {
        "values": values,
        "registered": registered,
        "anchors": apps.info(broker)["anchors"],
        "collateral": kept,
        "trouble": trouble,
        "soon": sorted((one for one in soon if one["soon"]), key=lambda one: one["order"]),
    }


def _collateral(broker: Broker, now: datetime) -> tuple[list[dict[str, Any]], str]:
    """What vendors said, the first to expire first; or why it cannot be shown."""
    path = broker.settings.collateral_store
    if not path.exists():
        return [], ""
    try:
        found = [
            {"kind": one.kind, "about": one.about, "url": one.url, "ends": pages.ending(one.expires, now)}
            for one in islice(collateral.Store(path).entries(), MAX_ENTRIES)
        ]
    except CasemateError as error:
        return [], str(error)
    return sorted(found, key=lambda one: one["ends"]["order"]), ""


def _recent(broker: Broker, size: int, tenant: str | None) -> list[dict[str, Any]]:
    """What is opened of the log's newest entries, newest first: all, or those of a tenant."""
    now = round(broker.clock().timestamp() * 1000)
    found = receipts.period(broker, 0, now + 1000, after=max(-1, size - RECENT - 1), limit=RECENT, tenant=tenant)
    return [_brief(one) for one in reversed(found)]


def _brief(one: Receipt) -> dict[str, Any]:
    entry = json.loads(one.entry)
    fields = {name: opening.value for name, opening in sorted(one.openings.items())}
    shown = {name: value if isinstance(value, str | int) else json.dumps(value) for name, value in fields.items()}
    told: dict[str, Any] = {"id": one.id, "index": one.index, "kind": entry["kind"], "allowed": entry.get("allowed")}
    return {**told, "time": history.text(entry["time"]), "fields": fields, "shown": shown}


def _demand_own(broker: Broker, admin: access.Admin, fields: dict[str, Any]) -> None:
    """Whose a receipt is tells its app, or the tenant that an act named."""
    if admin.tenant is None:
        return
    app_id = fields.get("app")
    tenant = access.tenant_of_app(broker, app_id) if isinstance(app_id, str) else fields.get("tenant")
    if tenant != admin.tenant:
        raise Missing("no such receipt", hint="its id stands in the header Casemate-Receipt of a grant")
