"""The KBS protocol, volumes, and what anybody may ask."""

from __future__ import annotations

from casemate.api.operations.shape import (
    ANY,
    BOOLEAN,
    BYTES,
    DIGEST,
    MAPPING,
    NUMBER,
    OCTETS,
    TEXT,
    TOKEN,
    Operation,
    listing,
    members,
)
from casemate.api.volumes import Initialised, Opening
from casemate.schema.kbs import AsChallenge, AsRequest, Attestation, AuthRequest, ReferenceMessage

RECEIPT = {"Casemate-Receipt": "The id of the decision's receipt"}
VERSION = {"Casemate-Version": "The resource's version"}
LEASE = {"Casemate-Lease": "For how many seconds the guest may keep what it was given"}
RESOURCE = "/kbs/v0/resource/{repo}/{type}/{tag}"
VALUES = "/kbs/v0/reference-value"
WHOSE = {"tenant": TEXT}
SEALED = {
    "type": "object",
    "properties": dict.fromkeys(("protected", "encrypted_key", "iv", "ciphertext", "tag"), TEXT),
    "required": ["ciphertext", "iv", "protected", "tag"],
}
_TEXT = "text/plain; charset=utf-8"
_METRICS = "text/plain; version=1.0.0; charset=utf-8; escaping=underscores"

OPERATIONS = (
    Operation(
        "POST",
        "/kbs/v0/auth",
        "Ask for a challenge",
        "KBS protocol",
        body=AuthRequest,
        answer=members(**{"nonce": TEXT, "extra-params": ANY}),
        also=(401, 403),
        description="The cookie of the answer is the sealed challenge; no state is kept.",
    ),
    Operation(
        "POST",
        "/kbs/v0/attest",
        "Answer the challenge with evidence",
        "KBS protocol",
        lock="challenge",
        body=Attestation,
        answer=members(token=TOKEN),
        also=(409,),
        headers={**RECEIPT, **LEASE, "Casemate-Lease-Id": "The lease; a guest that attests anew names it, to renew it"},
    ),
    Operation(
        "GET",
        RESOURCE,
        "Read a resource, sealed to the attested key",
        "KBS protocol",
        lock="guest",
        answer=SEALED,
        also=(304, 409, 410),
        query={"version": NUMBER},
        headers={**RECEIPT, **VERSION, **LEASE},
    ),
    Operation(
        "POST",
        RESOURCE,
        "Write a new version of a resource",
        "KBS protocol",
        lock="admin",
        body=BYTES,
        media=OCTETS,
        answer=members(version=NUMBER),
        also=(409,),
        query={"app": DIGEST, "window": NUMBER},
        headers=VERSION,
    ),
    Operation("DELETE", RESOURCE, "Delete a resource", "KBS protocol", lock="admin", also=(409,), query={"in": NUMBER}),
    Operation(
        "POST",
        VALUES,
        "Register reference values",
        "Trust",
        lock="admin",
        body=ReferenceMessage,
        answer=None,
        query=WHOSE,
    ),
    Operation(
        "GET",
        VALUES,
        "Reference values with signers and ends",
        "Trust",
        lock="admin",
        answer=members(reference_values=listing(MAPPING)),
        query=WHOSE,
    ),
    Operation(
        "GET",
        f"{VALUES}/{{id:path}}",
        "The value of one id",
        "Trust",
        lock="admin",
        answer=ANY,
        query=WHOSE,
        parameters={"id": {"type": "string", "pattern": "^[A-Za-z0-9_.:/+-]{1,512}$"}},
    ),
    Operation(
        "POST",
        "/casemate/v0/volumes/{name}/open",
        "Open a volume of the attested workload",
        "Volumes",
        lock="guest",
        body=Opening,
        answer=MAPPING,
        also=(409,),
        headers=RECEIPT,
    ),
    Operation(
        "POST",
        "/casemate/v0/volumes/{name}/initialised",
        "Say what a volume was made as",
        "Volumes",
        lock="guest",
        body=Initialised,
        also=(409,),
        headers=RECEIPT,
    ),
    # The attestation service, whose prefix is a setting; this is the usual one.
    Operation(
        "POST",
        "/as/attestation",
        "Judge evidence and sign the result",
        "Attestation service",
        body=AsRequest,
        answer=TOKEN,
        answers=_TEXT,
        also=(401, 403),
        optional=True,
    ),
    Operation(
        "POST",
        "/as/challenge",
        "A nonce for evidence",
        "Attestation service",
        body=AsChallenge,
        answer=TEXT,
        answers=_TEXT,
        also=(403,),
        optional=True,
    ),
    Operation(
        "GET",
        "/as/.well-known/jwks.json",
        "The keys that sign results",
        "Attestation service",
        answer=members(keys=listing(MAPPING)),
        optional=True,
    ),
    Operation("GET", "/as/healthz", "Alive", "Attestation service", answer=None, optional=True),
    Operation(
        "GET",
        "/casemate/v0/info",
        "The broker's keys and anchors",
        "Public",
        answer=members(version=TEXT, key_pin=DIGEST, signing_key=MAPPING, anchors=listing(MAPPING)),
    ),
    Operation("GET", "/casemate/v0/apps/{id}", "An app's signed statement", "Public", answer=members(statement=TOKEN)),
    Operation("GET", "/healthz", "Whether the process is alive", "Health", answer=members(alive=BOOLEAN)),
    Operation(
        "GET",
        "/readyz",
        "Whether this replica can take requests",
        "Health",
        answer=members(ready=BOOLEAN, checks={"type": "object", "additionalProperties": BOOLEAN}),
    ),
    Operation("GET", "/metrics", "Counters for Prometheus", "Health", answer=TEXT, answers=_METRICS, also=(401, 403)),
    Operation("GET", "/openapi.json", "This document", "Health", answer=MAPPING),
    Operation(
        "GET",
        "/.well-known/casemate/evidence",
        "The broker's own evidence, over a nonce and its TLS key",
        "Public",
        answer=members(evidence=MAPPING, initdata=TEXT, tls_key=DIGEST, port=NUMBER),
        query={"nonce": {"type": "string", "pattern": "^[A-Za-z0-9_-]{43}$"}, "port": NUMBER},
        required=("nonce",),
        also=(403,),
        optional=True,
    ),
)
