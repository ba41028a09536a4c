"""The KBS protocol's messages (RCAR 0.4.0, kbs-types): kebab-case outside, snake_case inside tee-evidence.

Unknown members are ignored, as the peers do; what a guest may say is bounded by the sizes of the bodies.
"""

from __future__ import annotations

from typing import Any

import msgspec


class AuthRequest(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """POST /kbs/v0/auth: a guest asks for a challenge."""

    version: str
    tee: str
    extra_params: Any = None


class InitData(msgspec.Struct, frozen=True, kw_only=True):
    """The initdata document as the guest received it; only `toml` is known."""

    format: str
    body: str


class RuntimeData(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """What the evidence binds: the challenge's nonce and the guest's ephemeral key."""

    nonce: str
    tee_pubkey: dict[str, Any]


class TeeEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """Primary evidence as JSON of its TEE; additional evidence is a string ("" when there is none)."""

    primary_evidence: dict[str, Any]
    additional_evidence: str = ""


class Attestation(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """POST /kbs/v0/attest."""

    runtime_data: RuntimeData
    tee_evidence: TeeEvidence
    init_data: InitData | None = None


class ReferenceMessage(msgspec.Struct, frozen=True, kw_only=True):
    """POST /kbs/v0/reference-value: a message of the reference value provider; `payload` is base64 (with padding)."""

    version: str
    type: str
    payload: str


class AsRuntimeData(msgspec.Struct, frozen=True, kw_only=True):
    """The attestation service's runtime data: `raw` is the report data itself (b64url), `structured` is hashed."""

    raw: str | None = None
    structured: dict[str, Any] | None = None


class AsInitData(msgspec.Struct, frozen=True, kw_only=True):
    """The attestation service's initdata: its digest (b64url) or the document."""

    init_data_digest: str | None = None
    init_data_toml: str | None = None


class AsVerification(msgspec.Struct, frozen=True, kw_only=True):
    """One attester's evidence: base64url of the evidence's JSON."""

    tee: str
    evidence: str
    runtime_data: AsRuntimeData | None = None
    init_data: AsInitData | None = None
    runtime_data_hash_algorithm: str = "sha384"


class AsRequest(msgspec.Struct, frozen=True, kw_only=True):
    """POST /attestation of the attestation service."""

    verification_requests: list[AsVerification]
    policy_ids: list[str] = []


class AsChallenge(msgspec.Struct, frozen=True, kw_only=True):
    """POST /challenge of the attestation service."""

    tee: str
    tee_params: Any = None
