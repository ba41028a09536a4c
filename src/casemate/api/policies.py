"""Policies on the wire: the key broker protocol's routes, and the admin's own.

They act on the whole broker's policies, or on those of the admin's tenant, or on those of `?tenant=`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from casemate.api import trials
from casemate.api.access import closed, of_query
from casemate.api.answers import answer, parsed
from casemate.broker import policybook, replay
from casemate.broker.policies import RESOURCE_NAME
from casemate.drivers.store.policies import ATTESTATION, RESOURCE
from casemate.errors import Malformed
from casemate.wire.encoding import unb64u

if TYPE_CHECKING:
    from casemate.broker.assemble import Broker

BASE = "/casemate/v0/admin/policies"
LIMIT = 1 << 20
Kind = Literal["attestation", "resource"]


class AttestationPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """CoCo's message: `policy` is the base64url of the Rego text; `type` says nothing."""

    policy_id: str
    policy: str
    type: str = "rego"


class ResourcePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """CoCo's message."""

    policy: str


class NewPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A policy's text."""

    text: str


class Check(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A policy that is only looked at."""

    kind: Kind
    text: str


class Explain(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A recorded attestation, the resource that it wants, and a policy instead of the one that holds."""

    kind: Kind
    attestation: str
    path: str = ""
    text: str | None = None


class Simulate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A policy that might be set, and the time whose attestations it is tried on; by default the last week."""

    kind: Kind
    name: str
    text: str
    since: datetime | None = None
    until: datetime | None = None
    paths: tuple[str, ...] = ()


def routes(broker: Broker) -> list[BaseRoute]:
    """The policies' routes."""
    return [*_protocol(broker), *_book(broker), *_replay(broker)]


def _protocol(broker: Broker) -> list[BaseRoute]:
    def attestation(request: Request, body: bytes) -> Response:
        asked = parsed(body, AttestationPolicy, "attestation policy")
        _put(broker, request, ATTESTATION, asked.policy_id, _decoded(asked.policy))
        return Response(status_code=200)

    def resource(request: Request, body: bytes) -> Response:
        asked = parsed(body, ResourcePolicy, "resource policy")
        _put(broker, request, RESOURCE, RESOURCE_NAME, _decoded(asked.policy))
        return Response(status_code=200)

    def names(request: Request, body: bytes) -> Response:
        found = policybook.listing(broker, request.state.tenant or "")
        return answer([policy["name"] for policy in found if policy["kind"] == RESOURCE])

    set_: dict[str, Any] = {"scope": of_query, "limit": LIMIT}
    return [
        Route("/kbs/v0/attestation-policy", closed(broker, "policy.set", attestation, **set_), methods=["POST"]),
        Route("/kbs/v0/resource-policy", closed(broker, "policy.set", resource, **set_), methods=["POST"]),
        Route("/kbs/v0/resource-policy", closed(broker, "policy.list", names, scope=of_query), methods=["GET"]),
    ]


def _book(broker: Broker) -> list[BaseRoute]:
    def listing(request: Request, body: bytes) -> Response:
        return answer({"policies": policybook.listing(broker, request.state.tenant or "")})

    def read(request: Request, body: bytes) -> Response:
        return answer(policybook.read(broker, request.state.tenant or "", *_named(request)))

    def put(request: Request, body: bytes) -> Response:
        return answer(_put(broker, request, *_named(request), parsed(body, NewPolicy, "policy").text))

    def remove(request: Request, body: bytes) -> Response:
        tenant, who = request.state.tenant or "", request.state.admin.who
        return answer(policybook.remove(broker, tenant, *_named(request), who=who))

    one = f"{BASE}/{{kind}}/{{policy}}"
    return [
        Route(BASE, closed(broker, "policy.list", listing, scope=of_query), methods=["GET"]),
        Route(one, closed(broker, "policy.list", read, scope=of_query), methods=["GET"]),
        Route(one, closed(broker, "policy.set", put, scope=of_query, limit=LIMIT), methods=["PUT"]),
        Route(one, closed(broker, "policy.set", remove, scope=of_query), methods=["DELETE"]),
    ]


def _replay(broker: Broker) -> list[BaseRoute]:
    def check(request: Request, body: bytes) -> Response:
        asked = parsed(body, Check, "policy")
        compiled, remarks = policybook.check(broker.policies.pool, asked.kind, asked.text, request.state.tenant or "")
        told = [remark._asdict() for remark in remarks]
        return answer({"digest": compiled.digest, "rules": list(compiled.rules), "remarks": told})

    def explain(request: Request, body: bytes) -> Response:
        asked = parsed(body, Explain, "explain")
        whose = request.state.tenant
        found = replay.explain(broker, whose, asked.kind, asked.attestation, path=asked.path, text=asked.text)
        return answer(found)

    def simulate(request: Request, body: bytes) -> Response:
        asked = parsed(body, Simulate, "simulate")
        since, until = _period(broker, asked.since, asked.until)
        found = replay.simulate(broker, request.state.tenant, asked.kind, asked.name, asked.text,
                                since=since, until=until, paths=list(asked.paths)[:20])  # fmt: skip
        return answer(found)

    def attestations(request: Request, body: bytes) -> Response:
        since, until = _period(broker, None, None)
        return answer({"attestations": replay.attestations(broker, request.state.tenant, since, until, 200)})

    locked: dict[str, Any] = {"scope": of_query, "limit": LIMIT}
    there = "/casemate/v0/admin/attestations"
    return [
        Route(f"{BASE}/check", trials.closed(broker, "policy.check", check, **locked), methods=["POST"]),
        Route(f"{BASE}/explain", trials.closed(broker, "policy.check", explain, **locked), methods=["POST"]),
        Route(f"{BASE}/simulate", trials.closed(broker, "policy.simulate", simulate, **locked), methods=["POST"]),
        Route(there, closed(broker, "policy.check", attestations, scope=of_query), methods=["GET"]),
    ]


def _put(broker: Broker, request: Request, kind: str, name: str, text: str) -> dict[str, Any]:
    return policybook.put(broker, request.state.tenant or "", kind, name, text, who=request.state.admin.who)


def _named(request: Request) -> tuple[str, str]:
    return str(request.path_params["kind"]), str(request.path_params["policy"])


def _decoded(text: str) -> str:
    try:
        return unb64u(text.rstrip("="), "policy").decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed("policy: text in UTF-8 is wanted") from error


def _period(broker: Broker, since: datetime | None, until: datetime | None) -> tuple[datetime, datetime]:
    if any(moment is not None and not 1970 <= moment.year <= 9998 for moment in (since, until)):
        raise Malformed("since, until: times from 1970 on are wanted")
    end = until or broker.clock()
    begin = since or end - timedelta(days=7)
    return begin if begin.tzinfo else begin.replace(tzinfo=UTC), end if end.tzinfo else end.replace(tzinfo=UTC)
