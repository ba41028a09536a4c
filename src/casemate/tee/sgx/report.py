"""SGX evidence: `{"quote": base64}` around a DCAP quote of an enclave. The layout is the wall's (dcap/quote.py)."""

from __future__ import annotations

from typing import Any

from casemate.errors import Malformed
from casemate.tee.dcap.quote import MAX_QUOTE, EnclaveReport, Quote, parse
from casemate.wire.encoding import unb64

FLAG_INIT, FLAG_DEBUG, FLAG_MODE64, FLAG_PROVISION_KEY = 0x01, 0x02, 0x04, 0x10


def parse_evidence(primary: dict[str, Any]) -> tuple[Quote, EnclaveReport]:
    """The quote and its body; a quote of a TD is `Malformed`."""
    text = primary.get("quote")
    if not isinstance(text, str) or len(text) > 2 * MAX_QUOTE:
        raise Malformed("sgx evidence: `quote` is not a string, or too long")
    quote = parse(unb64(text, "sgx evidence: quote"))
    if not isinstance(quote.body, EnclaveReport):
        raise Malformed("sgx evidence: the quote is of a TD, not of an enclave")
    return quote, quote.body
