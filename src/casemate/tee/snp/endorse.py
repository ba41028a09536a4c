"""Gathering the vendor's statements about SEV-SNP evidence: comes with the SEV-SNP verifier."""

from __future__ import annotations

from collections.abc import Callable

from casemate.errors import Unusable
from casemate.schema.endorsements import Endorsements
from casemate.schema.evidence import Evidence


def endorse(evidence: Evidence, fetch: Callable[[str], bytes]) -> Endorsements:
    """Not there yet."""
    raise Unusable("SEV-SNP evidence can't be endorsed yet", hint="it comes with the SEV-SNP verifier")
