"""What admins ask of policies."""

from __future__ import annotations

from casemate.api.operations.shape import BOOLEAN, DIGEST, MAPPING, NUMBER, TEXT, Operation, listing, members, nullable
from casemate.api.policies import BASE, AttestationPolicy, Check, Explain, NewPolicy, ResourcePolicy, Simulate

_TAG = "Policies"
_WHOSE = {"tenant": TEXT}
_REMARK = members(level=TEXT, message=TEXT, line=NUMBER)
_FACTS = {"kind": TEXT, "name": TEXT, "version": NUMBER}
_ENTRY = {**_FACTS, "from": TEXT, "digest": nullable(DIGEST)}
_VERSION = members(version=NUMBER, digest=nullable(DIGEST), who=TEXT, created=TEXT)
_KIND = {"type": "string", "enum": ["attestation", "resource"]}
_NAMED = {"kind": _KIND, "policy": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"}}
_BRIEF = members(id=TEXT, time=TEXT, tee=TEXT, app=nullable(DIGEST), tenant=TEXT, allowed=BOOLEAN, status=MAPPING)
_ONE = f"{BASE}/{{kind}}/{{policy}}"


def _of(method: str, path: str, summary: str, **more: object) -> Operation:
    return Operation(method, path, summary, _TAG, lock="admin", query=_WHOSE, **more)  # type: ignore[arg-type] # passed on as given


OPERATIONS = (
    _of("POST", "/kbs/v0/attestation-policy", "Set an attestation policy", body=AttestationPolicy, answer=None,
        also=(202,)),
    _of("POST", "/kbs/v0/resource-policy", "Set the resource policy", body=ResourcePolicy, answer=None, also=(202,)),
    _of("GET", "/kbs/v0/resource-policy", "The names of resource policies", answer=listing(TEXT)),
    _of("GET", BASE, "The policies that hold", answer=members(policies=listing(members(**_ENTRY)))),
    _of("GET", _ONE, "A policy's text and history", parameters=_NAMED,
        answer=members(**_ENTRY, text=TEXT, history=listing(_VERSION))),
    _of("PUT", _ONE, "Set a policy", parameters=_NAMED, body=NewPolicy, also=(202,),
        answer=members(**_FACTS, digest=DIGEST, remarks=listing(_REMARK))),
    _of("DELETE", _ONE, "Take a policy back", parameters=_NAMED, answer=members(**_FACTS), also=(202,)),
    _of("POST", f"{BASE}/check", "Compile a policy and say what is to be said of it", body=Check, also=(202,),
        answer=members(digest=DIGEST, rules=listing(TEXT), remarks=listing(_REMARK))),
    _of("POST", f"{BASE}/explain", "What every rule says of a recorded attestation", body=Explain, also=(202,),
        answer=members(attestation=_BRIEF, answers=listing(MAPPING))),
    _of("POST", f"{BASE}/simulate", "Who would be answered otherwise by another policy", body=Simulate, also=(202,),
        answer=members(seen=NUMBER, recorded=NUMBER, complete=BOOLEAN, refused=NUMBER, changed=listing(MAPPING),
                       remarks=listing(_REMARK))),
    _of("GET", "/casemate/v0/admin/attestations", "Attestations of the last week",
        answer=members(attestations=listing(_BRIEF))),
)  # fmt: skip
