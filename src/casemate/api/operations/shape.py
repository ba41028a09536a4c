"""What is declared of a route for OpenAPI: its bodies, statuses, and who may ask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Schema = dict[str, Any]
Lock = Literal["open", "challenge", "guest", "admin"]

TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "integer", "minimum": 0}
BOOLEAN: Schema = {"type": "boolean"}
BYTES: Schema = {"type": "string", "format": "binary"}
ANY: Schema = {}
TOKEN: Schema = {"type": "string", "pattern": r"^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$"}
DIGEST: Schema = {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"}
MAPPING: Schema = {"type": "object"}
JSON = "application/json"
OCTETS = "application/octet-stream"


def members(**fields: Schema) -> Schema:
    """An object that has all of these members."""
    return {"type": "object", "properties": fields, "required": sorted(fields)}


def listing(of: Schema) -> Schema:
    """An array."""
    return {"type": "array", "items": of}


def nullable(of: Schema) -> Schema:
    """That, or null."""
    return {"anyOf": [of, {"type": "null"}]}


# Parameters of paths by name; one with another meaning in one place is declared there.
_SEGMENT: Schema = {"type": "string", "pattern": r"^[A-Za-z0-9_-][A-Za-z0-9_.-]*$", "maxLength": 128}
PARAMETERS: Mapping[str, Schema] = {
    "repo": _SEGMENT,
    "type": _SEGMENT,
    "tag": _SEGMENT,
    "id": DIGEST,
    "digest": DIGEST,
    "name": {"type": "string", "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"},
}
# A status and why: what any request can meet, and what a lock adds.
ALWAYS: Mapping[int, str] = {
    400: "The request cannot be read",
    404: "There is nothing there",
    408: "The body did not come in time",
    413: "The body is longer than this path takes",
    429: "Too many requests from this address; `Retry-After` says when to come back",
    431: "The headers are longer than 256 KiB",
    500: "An error that nobody foresaw; its number is in the log",
    503: "The store or the memory for bodies is exhausted; `Retry-After` says when to come back",
}
REFUSALS: Mapping[int, str] = {
    401: "The caller did not show who it is, or its evidence is not genuine",
    403: "A rule says no; `reasons` says which",
}
LOCKS: Mapping[Lock, tuple[int, ...]] = {
    "open": (),
    "challenge": (401, 403),
    "guest": (401, 403),
    "admin": (401, 403),
}
OTHERS: Mapping[int, str] = {
    202: "Accepted; another admin must approve it",
    204: "Done",
    302: "Elsewhere",
    303: "Elsewhere",
    304: "The guest has this version",
    409: "It fights with what is recorded already",
    410: "It was deleted",
    415: "Another media type is wanted",
    422: "It cannot be done",
}


@dataclass(frozen=True)
class Operation:
    """One method on one path. `path` is the route's own; `body` and `answer` are types, schemas, or None for nothing.

    `also` are statuses beyond those of every request and of the lock; `query` are query parameters, by name; `headers`
    are what the answer's headers of ours mean; `parameters` are path parameters that mean something else here.
    `optional` routes are there only when a setting says so.
    """

    method: str
    path: str
    summary: str
    tag: str
    lock: Lock = "open"
    body: Any = None
    media: str = JSON
    answer: Any = field(default_factory=dict)
    answers: str = JSON
    status: int = 200
    also: tuple[int, ...] = ()
    query: Mapping[str, Schema] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, Schema] = field(default_factory=dict)
    description: str = ""
    optional: bool = False
