"""Endorsements of an SGX quote: Intel's collateral."""

from __future__ import annotations

from collections.abc import Callable

from casemate.schema.endorsements import Endorsements
from casemate.schema.evidence import Evidence
from casemate.tee.dcap import endorse as dcap
from casemate.tee.sgx import report


def endorse(evidence: Evidence, fetch: Callable[[str], bytes]) -> Endorsements:
    """Intel's collateral for the quote; `fetch` as in dcap/endorse.py."""
    quote, _ = report.parse_evidence(evidence.primary)
    return dcap.endorse(quote, fetch)
