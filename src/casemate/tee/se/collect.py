"""Collecting SE evidence: not built, because nobody here has a Z machine to see it work."""

from __future__ import annotations

from casemate.errors import Unusable
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request


def collect(request: Request) -> Evidence:
    """`Unusable`: the guest's own tools ask the Ultravisor; their answer is judged here."""
    del request
    raise Unusable(
        "SE evidence is not collected here",
        hint="run pvattest or CoCo's attestation agent in the guest, verify it here",
    )
