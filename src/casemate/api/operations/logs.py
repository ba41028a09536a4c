"""Operations of the transparency log."""

from __future__ import annotations

from casemate.api.operations.shape import (
    BYTES,
    DIGEST,
    NUMBER,
    OCTETS,
    TEXT,
    Operation,
    listing,
    members,
    nullable,
)

_PLAIN = "text/plain"
_BASE = "/casemate/v0"
_TIME = {"type": "string", "format": "date-time"}
_ID = {"type": "string", "pattern": "^[0-9a-f]{32}$"}
_TILE = r"^([0-7]|entries)/(x[0-9]{3}/){0,6}[0-9]{3}(\.p/[0-9]{1,3})?$"
_RECEIPT = members(
    version=NUMBER,
    id=_ID,
    entry=TEXT,
    index=NUMBER,
    openings={"type": "object", "additionalProperties": members(salt=TEXT, value={})},
    proof=listing(TEXT),
    checkpoint=TEXT,
)

OPERATIONS = (
    Operation("GET", f"{_BASE}/log/checkpoint", "The newest checkpoint", "Log", answer=TEXT, answers=_PLAIN),
    Operation(
        "GET",
        f"{_BASE}/log/tile/{{path:path}}",
        "A tile of hashes, or a bundle of entries",
        "Log",
        answer=BYTES,
        answers=OCTETS,
        parameters={
            "path": {"type": "string", "pattern": r"^([0-7]|entries)/(x[0-9]{3}/){0,6}[0-9]{3}(\.p/[0-9]{1,3})?$"}
        },
        description="C2SP tlog-tiles",
    ),
    Operation(
        "GET",
        f"{_BASE}/log/keys",
        "The log's origin and keys",
        "Log",
        answer=members(origin=TEXT, keys=listing(members(vkey=TEXT, begun=_TIME, ended=nullable(_TIME)))),
    ),
    Operation(
        "GET", f"{_BASE}/receipts/{{id}}", "A decision's receipt", "Log", answer=_RECEIPT, parameters={"id": _ID}
    ),
    Operation(
        "POST",
        f"{_BASE}/admin/log/rotate",
        "Give the log a new key",
        "Audit",
        lock="admin",
        answer=members(vkey=TEXT),
    ),
    Operation(
        "GET",
        f"{_BASE}/admin/receipts",
        "Receipts of a period",
        "Audit",
        lock="admin",
        answer=members(receipts=listing(_RECEIPT)),
        query={
            "since": _TIME,
            "until": _TIME,
            "after": {"type": "integer", "minimum": -1},
            "limit": {"type": "integer", "minimum": 1, "maximum": 1000},
            "app": DIGEST,
            "tenant": {"type": "string", "maxLength": 128},
        },
        required=("since", "until"),
    ),
)
