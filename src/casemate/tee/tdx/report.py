"""TDX evidence: `{"quote": base64, "cc_eventlog": base64 or null}` (CoCo) around a DCAP quote; TD attributes.

The quote's layout is the wall's (dcap/quote.py). Attributes: Intel TDX Module ABI specification, section "ATTRIBUTES":
bits 7:0 make a TD untrusted (bit 0 is DEBUG), 31:8 concern security, 63:32 are others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from casemate.errors import Malformed
from casemate.tee.dcap.quote import MAX_QUOTE, Quote, TdReport, parse
from casemate.wire.encoding import unb64

MAX_EVENT_LOG = 1 << 20

LASS, SEPT_VE_DISABLE, MIGRATABLE, PROTECTION_KEYS, KEY_LOCKER, PERFMON = 27, 28, 29, 30, 31, 63
_UNTRUSTED = 0xFF
_NAMED = sum(1 << bit for bit in (LASS, SEPT_VE_DISABLE, MIGRATABLE, PROTECTION_KEYS, KEY_LOCKER, PERFMON))


@dataclass(frozen=True)
class Attributes:
    """TD attributes as a number, with the bits that rules speak of."""

    value: int

    @property
    def debug(self) -> bool:
        """Any of the bits that let the host into the TD: debugging, and the profiling that came later."""
        return bool(self.value & _UNTRUSTED)

    @property
    def unknown(self) -> int:
        """Bits that have no meaning here."""
        return self.value & ~(_NAMED | _UNTRUSTED)

    def has(self, bit: int) -> bool:
        """Whether a bit is set."""
        return bool(self.value >> bit & 1)


def parse_evidence(primary: dict[str, Any]) -> tuple[Quote, TdReport, bytes | None]:
    """The quote, its body, and the event log (CCEL) or None; a quote of an enclave is `Malformed`."""
    text, log = primary.get("quote"), primary.get("cc_eventlog")
    if not isinstance(text, str) or len(text) > 2 * MAX_QUOTE:
        raise Malformed("tdx evidence: `quote` is not a string, or too long")
    if log is not None and (not isinstance(log, str) or len(log) > 2 * MAX_EVENT_LOG):
        raise Malformed("tdx evidence: `cc_eventlog` is neither null nor a string, or too long")
    quote = parse(unb64(text, "tdx evidence: quote"))
    if not isinstance(quote.body, TdReport):
        raise Malformed("tdx evidence: the quote is of an enclave, not of a TD")
    return quote, quote.body, unb64(log, "tdx evidence: cc_eventlog") if log else None


def attributes(body: TdReport) -> Attributes:
    """The TD's attributes."""
    return Attributes(int.from_bytes(body.td_attributes, "little"))
