"""The OpenAPI document: every route is in it, with its parameters, bodies and statuses."""

import json
import re

import pytest

from casemate.api import openapi, operations
from casemate.api.operations.shape import PARAMETERS, Operation


@pytest.fixture
def routes(service):
    return service.app.routes


def test_every_route_is_declared(routes):
    assert not openapi.problems(routes), "\n".join(openapi.problems(routes))


def test_every_declaration_has_a_route(routes):
    served = openapi.served(routes)
    lost = [
        f"{one.method} {one.path}"
        for one in operations.ALL
        if not one.optional and (one.method, one.path) not in served
    ]
    assert not lost, f"declared in casemate/api/operations, and no route: {lost}"


def test_a_missing_one_is_named_in_a_sentence(routes):
    without = [one for one in operations.ALL if one.path != "/casemate/v0/info"]
    (sentence,) = openapi.problems(routes, without)
    assert (
        sentence == "GET /casemate/v0/info has a route and no declaration: add an Operation to casemate/api/operations"
    )
    twice = [*operations.ALL, Operation("GET", "/casemate/v0/info", "again", "Public")]
    assert any("declared twice" in sentence for sentence in openapi.problems(routes, twice))
    assert openapi.document(routes, without)["paths"]["/casemate/v0/info"]["get"]["summary"] == "Not described"


def test_the_document_is_served(service, routes):
    got = service.call("GET", "/openapi.json")
    assert got.status == 200
    document = got.json()
    assert document == json.loads(json.dumps(openapi.document(routes)))
    assert document["openapi"] == "3.1.0"
    paths = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    assert paths == {(method, re.sub(r":\w+\}", "}", path)) for method, path in openapi.served(routes)}


def test_every_operation_says_what_it_takes_and_answers(routes):
    document = openapi.document(routes)
    names = set()
    for path, item in document["paths"].items():
        for method, one in item.items():
            where = f"{method} {path}"
            assert one["operationId"] not in names, where
            names.add(one["operationId"])
            inside = {p["name"] for p in one.get("parameters", []) if p["in"] == "path"}
            assert inside == set(re.findall(r"\{(\w+)\}", path)), where
            assert all(
                "pattern" in p["schema"] or "enum" in p["schema"]
                for p in one.get("parameters", [])
                if p["in"] == "path"
            ), where
            assert {"400", "404", "413", "429", "503"} <= set(one["responses"]), where
            assert any(int(status) < 400 for status in one["responses"]), where


def test_every_reference_inside_leads_somewhere(routes):
    document = openapi.document(routes)

    def references(part):
        if isinstance(part, dict):
            yield from ([part["$ref"]] if isinstance(part.get("$ref"), str) else [])
            part = list(part.values())
        if isinstance(part, list):
            for item in part:
                yield from references(item)

    for reference in set(references(document)):
        found = document
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]
        assert found


def test_patterns_are_portable():
    for schema in PARAMETERS.values():
        assert re.search(schema["pattern"], "a" * 5 if "sha256" not in schema["pattern"] else "sha256:" + "ab" * 32)
        assert r"\Z" not in schema["pattern"]


def test_locks_are_told(routes):
    """What the routes ask for is what the document says: an admin's route has the admin's lock."""
    locked = {(o.method, o.path) for o in operations.ALL if o.lock == "admin"}
    for route in routes:
        if hasattr(getattr(route, "endpoint", None), "access"):
            for method in route.methods - {"HEAD"}:
                assert (method, route.path) in locked, f"{method} {route.path} is an admin's: lock='admin'"
