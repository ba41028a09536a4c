"""Obtaining SEV-SNP evidence in the guest: comes with the SEV-SNP verifier."""

from __future__ import annotations

from casemate.errors import Unusable
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request


def collect(request: Request) -> Evidence:
    """Not there yet."""
    raise Unusable("SEV-SNP evidence can't be collected yet", hint="it comes with the SEV-SNP verifier")
