"""The contract of a TEE room. A package satisfies it by its functions; mypy checks each from a cold cache."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from casemate.schema.claims import Claims
from casemate.schema.endorsements import Endorsements
from casemate.schema.evidence import Evidence
from casemate.schema.launch import Launch, Machine
from casemate.schema.measurement import Measurement
from casemate.schema.request import Request

Fetch = Callable[[str], bytes]


class Room(Protocol):
    """Six verbs, one meaning each (ARCHITECTURE.md). A room that cannot do one raises `Unusable` with the reason."""

    def machine(self, launch: Launch) -> Machine:
        """What the VM driver must ask the hypervisor for."""
        ...

    def measure(self, launch: Launch) -> Measurement:
        """The register values that this launch will show."""
        ...

    def request(self, nonce: bytes, hint: bytes) -> Request:
        """The request that binds `nonce` (for most rooms the report data itself)."""
        ...

    def collect(self, request: Request) -> Evidence:
        """Obtain evidence on this machine; runs in the guest."""
        ...

    def endorse(self, evidence: Evidence, fetch: Fetch) -> Endorsements:
        """Gather the vendor's statements about this evidence."""
        ...

    def verify(self, evidence: Evidence, endorsements: Endorsements, request: Request, now: datetime) -> Claims:
        """Find the evidence genuine and return claims, or raise `Refused` with every failed rule."""
        ...
