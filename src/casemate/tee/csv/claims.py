"""CSV's claims under CoCo's names (Trustee's verifier for CSV)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from casemate.tee.csv.wire import Parts

if TYPE_CHECKING:
    from casemate.boot.eventlog import EventLog

_BITS = ("nodbg", "noks", "es", "nosend", "domain", "csv", "csv3", "asid_reuse")


def policy(value: int) -> dict[str, int]:
    """The guest policy's fields. A bit forbids (nodbg, noks, nosend), demands (es, domain, csv, csv3) or allows."""
    bits = {name: value >> place & 1 for place, name in enumerate(_BITS)}
    return bits | {
        "hsk_version": value >> 8 & 0xF,
        "cek_version": value >> 12 & 0xF,
        "api_major": value >> 16 & 0xFF,
        "api_minor": value >> 24 & 0xFF,
    }


def values(parts: Parts, log: EventLog | None) -> dict[str, Any]:
    """The claims of a report and a replayed log. No signature covers `serial_number`; the HMAC alone does."""
    report = parts.report
    found: dict[str, Any] = {
        "version": str(report.version),
        "policy": policy(report.policy),
        "sig_usage": report.sig_usage.to_bytes(4, "little").hex(),
        "sig_algo": report.sig_algo.to_bytes(4, "little").hex(),
        "serial_number": parts.serial_number.rstrip(b"\0").decode("ascii", "backslashreplace"),
        "mac": "checked" if report.mac else "not in this form of the evidence",
    }
    for name in ("user_pubkey_digest", "vm_id", "vm_version", "report_data", "mnonce", "measure"):
        found[name] = getattr(report, name).hex()
    if report.version == 1:
        unread = {"event_log": "not judged: this version has no registers"} if parts.event_log else {}
        return found | {"anonce": report.anonce.hex()} | unread
    found |= {"build": report.build, "rtmr_version": report.rtmr_version}
    found |= {f"rtmr{i}": value.hex() for i, value in enumerate(report.rtmrs)}
    found |= {f"reserved{i}": value.hex() for i, value in enumerate(report.reserved)}
    if log is None:
        return found
    from casemate.boot import ccel

    return found | {"uefi_event_logs": ccel.claims(log)}
