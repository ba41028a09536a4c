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
