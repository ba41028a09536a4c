"""The door of the console: sign in with an admin's token or certificate, sign out; its style and its icon."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from casemate.api.answers import route
from casemate.api.console import logins, pages
from casemate.api.console.pages import BASE, HEADERS, LOGIN
from casemate.broker import access

if TYPE_CHECKING:
    from casemate.broker.assemble import Broker

_LIMIT = 64 << 10
FILES = {"style.css": "text/css", "icon.svg": "image/svg+xml"}


class Shown(NamedTuple):
    """A token from the form, as if it had come in the header that the admin API looks at."""

    headers: dict[str, str]
    state: Any
    method: str
    console: bool = True  # a token for the console alone will do here


def routes(broker: Broker) -> list[BaseRoute]:
    """The routes that need no sign-in, and the way out."""

    def ask(request: Request, body: bytes) -> Response:
        certificate = isinstance(getattr(request.state, "client_certificate", None), bytes)
        return pages.render(request, "login.html", "Sign in", certificate=certificate)

    def enter(request: Request, body: bytes) -> Response:
        pages.demand_own_page(request)
        token = pages.fields(request, body).get("token", "").strip()
        shown = Shown({"authorization": f"Bearer {token}"}, request.state, "POST") if token else request
        admin = access.admit(broker, shown, "console.read")
        now = broker.clock()
        login = logins.made(broker, admin, token, now)
        answer = RedirectResponse(f"{BASE}/apps", 303, HEADERS)
        answer.set_cookie(
            logins.COOKIE,
            logins.sealed(broker, login),
            max_age=max(0, round(login.expires - now.timestamp())),
            path="/",
            secure=True,
            httponly=True,
            samesite="strict",
        )
        return answer

    def leave(request: Request, body: bytes) -> Response:
        logins.demand_form(request.state.login, pages.fields(request, body).get("csrf", ""))
        answer = RedirectResponse(LOGIN, 303, HEADERS)
        answer.delete_cookie(logins.COOKIE, path="/", secure=True, httponly=True, samesite="strict")
        return answer

    def front(request: Request, body: bytes) -> Response:
        return RedirectResponse(f"{BASE}/apps", 303, HEADERS)

    def made(path: str, endpoint: Any, method: str = "GET") -> Route:
        return Route(BASE + path, endpoint, methods=[method], include_in_schema=False)

    return [
        made("", route(0, front)),
        made("/login", pages.dressed(route(0, ask))),
        made("/login", pages.dressed(route(_LIMIT, enter)), "POST"),
        made("/logout", pages.page(broker, "console.read", leave, limit=_LIMIT, form=True), "POST"),
        *(made(f"/{name}", route(0, _file(name))) for name in FILES),
    ]


def _file(name: str) -> Any:
    content = resources.files("casemate.api.console").joinpath("files", name).read_bytes()

    def file(request: Request, body: bytes) -> Response:
        return Response(content, headers={**HEADERS, "Cache-Control": "max-age=3600"}, media_type=FILES[name])

    return file
