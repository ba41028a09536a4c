"""Pages: rendered with escaping and strict names, sent with headers that let nothing in and nothing out."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import jinja2
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from casemate.api.access import closed
from casemate.api.answers import Endpoint
from casemate.api.console import logins
from casemate.broker import access
from casemate.errors import Malformed, Refused

if TYPE_CHECKING:
    from casemate.broker.assemble import Broker

BASE = "/console"
LOGIN = f"{BASE}/login"
SOON = timedelta(days=7)
_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # `no-referrer` would take the Origin from our own forms
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
PLACES = (
    ("apps", "Apps"),
    ("decisions", "Decisions"),
    ("trust", "Reference values"),
    ("log", "Log"),
    ("simulate", "Simulate a policy"),
)
_MAX_FIELDS = 32
Dress = Callable[[Request, Response], Response]


@cache
def _environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("casemate.api.console"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals.update(base=BASE, places=PLACES)
    return made


def render(request: Request, template: str, title: str, status: int = 200, **given: Any) -> Response:
    """A page. `place` is the last word of the path below the console, for the menu."""
    login = getattr(request.state, "login", None)
    place = request.url.path.removeprefix(BASE).strip("/").partition("/")[0]
    known = {"title": title, "place": place, "csrf": login.csrf if login else "", "admin": None, **given}
    if login is not None and hasattr(request.state, "admin"):
        known["admin"] = request.state.admin
    text = _environment().get_template(template).render(known)
    return Response(text, status, HEADERS, media_type="text/html")


def page(
    broker: Broker,
    act: str,
    handle: Callable[[Request, bytes], Response],
    *,
    limit: int = 0,
    form: bool = False,
    lock: Callable[..., Endpoint] = closed,
) -> Endpoint:
    """An endpoint for who is signed in and may do `act`; a `form` must come from one of our own pages."""

    def entered(broker: Broker, request: Request, act: str) -> access.Admin:
        if form:
            demand_own_page(request)
        return signed_in(broker, request, act)

    inner = lock(broker, act, handle, scope=entered, limit=limit)
    endpoint = dressed(inner)
    endpoint.access = inner.access  # type: ignore[attr-defined] # as `closed` does, for the tests that walk over locks
    return endpoint


def dressed(inner: Endpoint) -> Endpoint:
    """An endpoint whose errors are pages; who is not signed in is led to the login."""

    async def endpoint(request: Request) -> Response:
        answer = await inner(request)
        if answer.status_code < 400 or answer.media_type == "text/html":
            return answer
        if answer.status_code == 401 and request.method == "GET":
            return RedirectResponse(LOGIN, 303, HEADERS)
        return error(request, answer)

    return endpoint


def error(request: Request, answer: Response) -> Response:
    """An answer of the admin API's form, as a page."""
    told = json.loads(bytes(answer.body) or b"{}")
    known = {"detail": told.get("detail", ""), "hint": told.get("hint", ""), "reasons": told.get("reasons", [])}
    page = render(request, "error.html", f"Error {answer.status_code}", answer.status_code, **known)
    if "retry-after" in answer.headers:
        page.headers["Retry-After"] = answer.headers["retry-after"]
    return page


def signed_in(broker: Broker, request: Request, act: str) -> access.Admin:
    """The admin in the cookie, as it is recorded now, if it may do `act`. Bearer tokens do not count here."""
    now = broker.clock()
    login = logins.opened(broker, request.cookies.get(logins.COOKIE, ""), now)
    request.state.admin = logins.current(broker, login)
    request.state.login, request.state.tenant = login, request.state.admin.tenant
    return access.admit(broker, request, act)


def demand_own_page(request: Request) -> None:
    """Browsers say where a form comes from: it must be this very host."""
    origin = urlsplit(request.headers.get("origin", ""))
    own = origin.scheme == "https" and origin.netloc == request.headers.get("host", "")
    if not own or request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
        raise Refused.because(
            "admin.origin", expected="a form of this broker's own pages", found="another site's", hint="load the page"
        )


def fields(request: Request, body: bytes) -> dict[str, str]:
    """A form's fields; `Malformed` for all that browsers would not send."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS)
    except ValueError as error:
        raise Malformed("form: it cannot be read") from error
    if kind != "application/x-www-form-urlencoded" or len({name for name, _ in pairs}) != len(pairs):
        raise Malformed("form: each field once, as a browser sends it, is wanted")
    return dict(pairs)


def ending(when: datetime | None, now: datetime) -> dict[str, Any]:
    """When something ends, in words; `soon` is true for what ended or will within a week."""
    if when is None:
        return {"at": "", "words": "does not expire", "soon": False, "order": float("inf")}
    left = when - now
    words = f"in {left.days} days" if left.days > 1 else f"in {int(left.total_seconds() // 3600)} hours"
    return {
        "at": when.strftime("%Y-%m-%d %H:%M UTC"),
        "words": words if left.total_seconds() > 0 else "expired",
        "soon": left < SOON,
        "order": when.timestamp(),
    }
