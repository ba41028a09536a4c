"""The broker's OpenAPI 3.1 document, generated from its routes and from what `operations` declares of them.

Schemas of messages come from the types that parse them, so document and parser cannot differ.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from casemate import __version__
from casemate.api import operations
from casemate.api.answers import route
from casemate.api.operations.shape import ALWAYS, JSON, LOCKS, OTHERS, PARAMETERS, REFUSALS, TEXT, Operation, Schema
from casemate.release.session import COOKIE
from casemate.schema.json_schema import portable

if TYPE_CHECKING:
    from casemate.broker.assemble import Broker

PATH = "/openapi.json"
_PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")
_TEMPLATE = "#/components/schemas/{name}"
_STATUSES = {**ALWAYS, **REFUSALS, **OTHERS}
_SECURITY: Mapping[str, list[Schema]] = {
    "open": [],
    "challenge": [{"session": []}],
    "guest": [{"session": []}, {"token": []}],
    "admin": [{"admin": []}],
}


def routes(broker: Broker) -> list[BaseRoute]:
    """The document's own route; it is made once, when it is first asked for."""
    made: list[bytes] = []

    def text(request: Request, body: bytes) -> Response:
        if not made:
            made.append(json.dumps(document(request.app.routes)).encode())
        return Response(made[0], media_type=JSON)

    return [Route(PATH, route(0, text), methods=["GET"])]


def served(there: Iterable[BaseRoute]) -> set[tuple[str, str]]:
    """(method, path) of each route but the console's pages. HEAD is GET without a body, as everywhere in HTTP."""
    flat = [one for one in there if isinstance(one, Route) and one.include_in_schema]
    return {(method, one.path) for one in flat for method in one.methods or () if method != "HEAD"}


def problems(there: Iterable[BaseRoute], declared: Iterable[Operation] = operations.ALL) -> list[str]:
    """A sentence for each route that is not declared, or declared twice."""
    names = [(one.method, one.path) for one in declared]
    twice = sorted({name for name in names if names.count(name) > 1})
    missing = sorted(served(there) - set(names), key=lambda name: name[::-1])
    return [
        *(f"{m} {p} has a route and no declaration: add an Operation to casemate/api/operations" for m, p in missing),
        *(f"{m} {p} is declared twice in casemate/api/operations" for m, p in twice),
    ]


def document(there: Iterable[BaseRoute], declared: Iterable[Operation] = operations.ALL) -> Schema:
    """OpenAPI 3.1 of these routes; one that nobody declared is there with its path alone."""
    known = {(one.method, one.path): one for one in declared}
    return described(known.get(name) or Operation(*name, "Not described", "Other") for name in served(there))


def described(declared: Iterable[Operation]) -> Schema:
    """OpenAPI 3.1 of these operations."""
    found = sorted(declared, key=lambda one: (one.path, one.method))
    types = {id(kind): kind for one in found for kind in (one.body, one.answer) if isinstance(kind, type)}
    refs, parts = msgspec.json.schema_components(types.values(), ref_template=_TEMPLATE)
    schemas = dict(zip(types, refs, strict=True))
    paths: dict[str, Schema] = {}
    for one in found:
        paths.setdefault(_PARAMETER.sub(r"{\1}", one.path), {})[one.method.lower()] = _operation(one, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Casemate broker",
            "version": __version__,
            "description": "Keys for attested workloads: the KBS protocol (RCAR 0.4.0), and what its admins ask.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": {"Error": _ERROR, **{name: portable(part) for name, part in sorted(parts.items())}},
            "responses": {f"E{s}": _refusal(s) for s in sorted({**ALWAYS, **REFUSALS, **OTHERS}) if s >= 400},
            "securitySchemes": _SCHEMES,
        },
    }


def _operation(one: Operation, schemas: Mapping[int, Schema]) -> Schema:
    def schema(kind: Any) -> Schema:
        return schemas[id(kind)] if isinstance(kind, type) else kind

    made: Schema = {
        "operationId": _identifier(one),
        "summary": one.summary,
        "tags": [one.tag],
        "responses": _responses(one, schema(one.answer)),
    }
    if one.description:
        made["description"] = one.description
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {**PARAMETERS, **one.parameters}.get(name, TEXT)}
        for name in _PARAMETER.findall(one.path)
    ] + [
        {"name": name, "in": "query", "required": name in one.required, "schema": of} for name, of in one.query.items()
    ]
    if parameters:
        made["parameters"] = parameters
    if one.body is not None:
        made["requestBody"] = {"required": True, "content": {one.media: {"schema": schema(one.body)}}}
    if one.lock != "open":
        made["security"] = _SECURITY[one.lock]
    return made


def _responses(one: Operation, answer: Schema) -> Schema:
    good: Schema = {"description": "Done", "content": {one.answers: {"schema": answer}}}
    if one.status == 204:
        good.pop("content")
    if one.headers:
        good["headers"] = {name: {"description": text, "schema": TEXT} for name, text in one.headers.items()}
    statuses = sorted({*ALWAYS, *LOCKS[one.lock], *one.also})
    others = {
        str(s): {"$ref": f"#/components/responses/E{s}"} if s >= 400 else {"description": _STATUSES[s]}
        for s in statuses
    }
    return {str(one.status): good, **others}


def _refusal(status: int) -> Schema:
    return {
        "description": _STATUSES[status],
        "content": {JSON: {"schema": {"$ref": "#/components/schemas/Error"}}},
    }


def _identifier(one: Operation) -> str:
    words = re.findall(r"[A-Za-z0-9]+", one.path.replace("/casemate/v0", "").replace("/kbs/v0", "/kbs"))
    return "_".join([one.method.lower(), *words])


_FINDING: Schema = {
    "type": "object",
    "properties": dict.fromkeys(("rule", "result", "expected", "found", "hint"), TEXT),
    "required": ["rule"],
}
_ERROR: Schema = {
    "type": "object",
    "description": "The protocol's ErrorInformation, and the rules that failed.",
    "properties": {"type": TEXT, "detail": TEXT, "hint": TEXT, "reasons": {"type": "array", "items": _FINDING}},
    "required": ["detail", "type"],
}
_SCHEMES: Schema = {
    "session": {"type": "apiKey", "in": "cookie", "name": COOKIE},
    "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "The answer of /kbs/v0/attest"},
    "admin": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "A token of an admin"},
}
