"""Operations of tenants, admins, approvals, keys, and of the broker as an issuer of tokens."""

from __future__ import annotations

from casemate.api.approvals import Approving
from casemate.api.issuing import Audiences, Rotation
from casemate.api.operations.shape import (
    BOOLEAN,
    DIGEST,
    MAPPING,
    NUMBER,
    TEXT,
    Operation,
    Schema,
    listing,
    members,
    nullable,
)
from casemate.api.tenants import NewTenant
from casemate.broker.admins import NewAdmin
from casemate.broker.tenants import Changes

BASE = "/casemate/v0/admin"
_ONE = f"{BASE}/approvals/{{number}}"
_NUMBER: dict[str, Schema] = {"number": {"type": "string", "pattern": "^[0-9a-f]{32}$"}}
_WHOSE: dict[str, Schema] = {"tenant": {"type": "string", "pattern": r"^([*]|[A-Za-z0-9][A-Za-z0-9._-]{0,127})$"}}
_TENANT = members(tenant=TEXT, unsigned_references=BOOLEAN, two_person=listing(TEXT), max_decisions=NUMBER)
_ADMIN = members(who=TEXT, role=TEXT, tenant=nullable(TEXT), known_by=TEXT, credential=TEXT, created=TEXT)
_APPROVAL = members(
    approval=TEXT,
    tenant=nullable(TEXT),
    act=TEXT,
    digest=DIGEST,
    who=TEXT,
    state=TEXT,
    created=TEXT,
    expires=TEXT,
    decider=nullable(TEXT),
    decided=nullable(TEXT),
    outcome=nullable(MAPPING),
)
_SEALED = members(protected=TEXT, encrypted_key=TEXT, iv=TEXT, ciphertext=TEXT, tag=TEXT)
_KEYS = members(keys=listing(members(key=TEXT, kind=TEXT, state=TEXT, begins=TEXT)))


def _admin(method: str, path: str, summary: str, tag: str, **more: object) -> Operation:
    also = () if method == "GET" or tag == "Approvals" else (202, 409)
    return Operation(method, path, summary, tag, lock="admin", **{"also": also, **more})  # type: ignore[arg-type] # as given


def _token(path: str) -> Operation:
    return Operation(
        "GET",
        path,
        "A token for others, sealed to the attested key",
        "Tokens",
        lock="guest",
        answer=_SEALED,
        query={"aud": {"type": "string", "pattern": "^[!-~]{1,256}$"}},
        required=("aud",),
        description="For an audience that the app's owner allowed. The JWE holds an ES256 JWT of this broker's issuer.",
    )


OPERATIONS = (
    Operation(
        "GET", "/.well-known/jwks.json", "The keys that sign tokens", "Tokens", answer=members(keys=listing(MAPPING))
    ),
    Operation(
        "GET",
        "/.well-known/openid-configuration",
        "OpenID Connect discovery",
        "Tokens",
        answer=members(issuer=TEXT, jwks_uri=TEXT),
    ),
    _token("/kbs/v0/token"),
    _token("/kbs/v0/token/{repo}/{type}/{tag}"),
    _admin("GET", f"{BASE}/apps/{{id}}/audiences", "For whom its guests may get tokens", "Apps", answer=Audiences),
    _admin(
        "POST",
        f"{BASE}/apps/{{id}}/audiences",
        "Set for whom its guests may get tokens",
        "Apps",
        body=Audiences,
        answer=Audiences,
    ),
    _admin("GET", f"{BASE}/keys", "Keys of tokens and cookies", "Keys", answer=_KEYS),
    _admin("POST", f"{BASE}/keys/rotate", "Give tokens and cookies new keys", "Keys", body=Rotation, answer=_KEYS),
    _admin("GET", f"{BASE}/whoami", "Who you are taken for", "Admins", answer=MAPPING),
    _admin("GET", f"{BASE}/tenants", "The tenants", "Tenants", answer=members(tenants=listing(_TENANT))),
    _admin("POST", f"{BASE}/tenants", "Make a tenant", "Tenants", body=NewTenant, answer=_TENANT),
    _admin(
        "POST",
        f"{BASE}/tenants/{{tenant}}",
        "Change what a tenant settled",
        "Tenants",
        body=Changes,
        answer=_TENANT,
        parameters=_WHOSE,
    ),
    _admin("GET", f"{BASE}/admins", "The recorded admins", "Admins", answer=members(admins=listing(_ADMIN))),
    _admin("POST", f"{BASE}/admins", "Record an admin", "Admins", body=NewAdmin, answer=_ADMIN, query=_WHOSE),
    _admin(
        "DELETE",
        f"{BASE}/admins",
        "Remove an admin",
        "Admins",
        answer=members(who=TEXT, removed=BOOLEAN),
        query={"who": TEXT},
        required=("who",),
    ),
    _admin("GET", f"{BASE}/approvals", "Changes that wait", "Approvals", answer=members(approvals=listing(_APPROVAL))),
    _admin("GET", _ONE, "A change that waits", "Approvals", answer=_APPROVAL, parameters=_NUMBER),
    _admin(
        "POST",
        f"{_ONE}/approve",
        "Approve a change; it takes effect",
        "Approvals",
        body=Approving,
        answer=_APPROVAL,
        parameters=_NUMBER,
        also=(409,),
    ),
    _admin("POST", f"{_ONE}/reject", "Reject a change", "Approvals", answer=_APPROVAL, parameters=_NUMBER, also=(409,)),
)
