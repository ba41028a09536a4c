"""Endorsements of TPM evidence: nothing to fetch.

The AK's certificates come with the evidence, the anchors and revocation lists from the operator (`Endorsements`). URLs
inside certificates (AIA, distribution points) are never followed: an attester would choose what the broker fetches.
"""

from __future__ import annotations

from casemate.schema.endorsements import Endorsements
from casemate.schema.evidence import Evidence
from casemate.tee.room import Fetch


def endorse(evidence: Evidence, fetch: Fetch) -> Endorsements:
    """Empty: the caller adds its anchors, and revocation lists as collateral named `*.crl`."""
    return Endorsements()
