"""Endorsements of a Nitro document: none to gather, because the document carries its whole chain."""

from __future__ import annotations

from collections.abc import Callable

from casemate.schema.endorsements import Endorsements
from casemate.schema.evidence import Evidence


def endorse(evidence: Evidence, fetch: Callable[[str], bytes]) -> Endorsements:
    """Nothing: AWS publishes no revocation lists for the document's certificates, which live for hours."""
    del evidence, fetch
    return Endorsements()
