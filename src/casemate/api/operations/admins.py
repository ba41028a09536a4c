"""What admins ask of apps, of what the broker trusts, and of what it decided."""

from __future__ import annotations

from casemate.api.admin import NewAnchor
from casemate.api.apps import Founding, Platforms
from casemate.api.operations.shape import (
    BOOLEAN,
    DIGEST,
    MAPPING,
    NUMBER,
    TEXT,
    Operation,
    listing,
    members,
    nullable,
)
from casemate.schema.app import AppStatement
from casemate.schema.manifest import Manifest
from casemate.schema.reference import ReferenceValues

BASE = "/casemate/v0/admin"
_APP = f"{BASE}/apps/{{id}}"
LIMIT = {"type": "integer", "minimum": 1, "maximum": 10000}
_DECISION = members(
    id=NUMBER,
    time=TEXT,
    act=TEXT,
    allowed=BOOLEAN,
    app=nullable(DIGEST),
    manifest_digest=nullable(DIGEST),
    tee=nullable(TEXT),
    resource=nullable(TEXT),
    findings=listing(MAPPING),
)


def _admin(method: str, path: str, summary: str, tag: str = "Apps", **more: object) -> Operation:
    return Operation(method, path, summary, tag, lock="admin", **more)  # type: ignore[arg-type] # passed on as given


OPERATIONS = (
    _admin("POST", f"{BASE}/apps", "Found an app", body=Founding, answer=members(app_id=DIGEST, founding=MAPPING)),
    _admin("GET", f"{BASE}/apps", "Every app", answer=members(apps=listing(MAPPING))),
    _admin("POST", f"{_APP}/platforms", "Set the platforms an app allows", body=Platforms, answer=AppStatement),
    _admin(
        "GET", f"{_APP}/resources", "An app's resources, not their content", answer=members(resources=listing(MAPPING))
    ),
    _admin(
        "POST", f"{_APP}/releases", "Make a manifest a release", body=Manifest, answer=members(manifest_digest=DIGEST)
    ),
    _admin(
        "POST",
        f"{_APP}/releases/{{digest}}/revoke",
        "Revoke a release",
        answer=members(manifest_digest=DIGEST, state=TEXT),
    ),
    _admin("POST", f"{BASE}/reference-values", "Accept a guest image", "Trust", body=ReferenceValues),
    _admin(
        "GET",
        f"{BASE}/reference-values",
        "Accepted guest images",
        "Trust",
        answer=members(reference_values=listing(MAPPING)),
    ),
    _admin(
        "DELETE",
        f"{BASE}/reference-values",
        "Accept a guest image no longer",
        "Trust",
        answer=members(leases_ended=NUMBER),
        query={"name": TEXT, "tee": TEXT, "tenant": TEXT},
        required=("name", "tee"),
    ),
    _admin(
        "DELETE",
        f"{BASE}/anchors/{{id}}",
        "Trust a root no longer",
        "Trust",
        answer=members(leases_ended=NUMBER),
    ),
    _admin(
        "POST",
        f"{BASE}/anchors",
        "Trust a root of platforms",
        "Trust",
        body=NewAnchor,
        answer=members(fingerprint=TEXT),
    ),
    _admin(
        "GET",
        f"{BASE}/decisions",
        "The newest decisions",
        "Audit",
        answer=members(decisions=listing(_DECISION)),
        query={"limit": LIMIT, "app": DIGEST},
    ),
)
