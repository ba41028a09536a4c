"""What admins ask of secrets, leases and the master key, and how a guest gives its lease back."""

from __future__ import annotations

from casemate.api.operations.shape import DIGEST, MAPPING, NUMBER, TEXT, Operation, listing, members, nullable
from casemate.api.secrets import Ending, Holders, Step

BASE = "/casemate/v0/admin"
_ONE = f"{BASE}/resources/{{repo}}/{{type}}/{{tag}}"
_TAG = "Secrets"
_VERSIONS = members(resource=TEXT, app_id=DIGEST, purged=nullable(TEXT), versions=listing(MAPPING))
_STEP = members(master=TEXT, rewrapped=NUMBER, failed=listing(MAPPING), after=TEXT)

OPERATIONS = (
    Operation("DELETE", "/casemate/v0/lease", "Give the lease back", "Guests", lock="guest"),
    Operation("GET", f"{_ONE}/versions", "The versions of a secret", _TAG, lock="admin", answer=_VERSIONS),
    Operation("POST", f"{_ONE}/undelete", "Take a scheduled deletion back", _TAG, lock="admin", also=(202,)),
    Operation(
        "POST",
        f"{BASE}/apps/{{id}}/holders",
        "Bound how many guests hold a lease",
        "Apps",
        lock="admin",
        body=Holders,
        answer=members(max_holders=nullable(NUMBER)),
        also=(202,),
    ),
    Operation(
        "GET",
        f"{BASE}/leases",
        "The newest leases",
        _TAG,
        lock="admin",
        answer=members(leases=listing(MAPPING)),
        query={"app": DIGEST, "tenant": TEXT, "limit": {"type": "integer", "minimum": 1, "maximum": 10000}},
    ),
    Operation(
        "POST",
        f"{BASE}/leases/end",
        "End leases: who holds one attests anew",
        _TAG,
        lock="admin",
        body=Ending,
        answer=members(ended=NUMBER),
        query={"tenant": TEXT},
        also=(202,),
    ),
    Operation(
        "GET",
        f"{BASE}/master",
        "The master keys and what is sealed under each",
        _TAG,
        lock="admin",
        answer=members(masters=listing(MAPPING), unknown=listing(MAPPING)),
    ),
    Operation(
        "POST",
        f"{BASE}/master/rewrap",
        "Wrap the next values under the present master key",
        _TAG,
        lock="admin",
        body=Step,
        answer=_STEP,
        also=(202,),
    ),
)
