"""Endorsements of a TDX quote: Intel's collateral. `fetch` as in dcap/endorse.py."""

from __future__ import annotations

from collections.abc import Callable

from casemate.schema.endorsements import Endorsements
from casemate.schema.evidence import Evidence


def endorse(evidence: Evidence, fetch: Callable[[str], bytes]) -> Endorsements:
    """Intel's collateral for the quote; `Unusable` when the quote does not say which platform made it."""
    from casemate.tee.dcap import endorse as dcap
    from casemate.tee.tdx import report

    quote, _, _ = report.parse_evidence(evidence.primary)
    return dcap.endorse(quote, fetch)
