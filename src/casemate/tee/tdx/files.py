"""TDX evidence in files: a quote of a TD, and of the event logs that lie there the one that replays to its RTMRs.

A log is the firmware's (CCEL), or dstack's JSON list of events, written anew in the firmware's format: it is believed
only as far as it replays, whatever its form was.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from casemate.boot import eventlog
from casemate.errors import Malformed
from casemate.tee.dcap import gather as wall
from casemate.tee.dcap.quote import TdReport
from casemate.tee.files import Case, Gathered, decoded
from casemate.tee.tdx.report import MAX_EVENT_LOG
from casemate.wire.encoding import b64

_ALGORITHM = "sha384"
_SHA384 = 0x000C
_MAX_EVENTS = 4096


def gather(case: Case) -> Gathered | None:
    """The quote of a case with its log and Intel's collateral, or None."""
    found = wall.quotes(case, "tdx", TdReport)
    if not found:
        return None
    logs = list(_logs(case, found))
    primaries: dict[bytes, dict[str, Any]] = {}
    used: list[str] = []
    for entry in reversed(found):
        log = _fitting(logs, entry.quote.body.rtmrs)  # type: ignore[union-attr]  # `quotes` was asked for TD bodies
        primaries[entry.quote.signed + entry.quote.signature] = wall.primary(entry) | {
            "cc_eventlog": b64(log[1]) if log else None
        }
        used = [log[0]] if log else used
    whole = wall.gathered(case, "tdx", found, primaries)
    return Gathered(
        evidence=whole.evidence,
        endorsements=whole.endorsements,
        used=tuple(dict.fromkeys([*whole.used, *used])),
        missing=whole.missing,
        also=whole.also,
        report_data=whole.report_data,
    )


def _logs(case: Case, found: list[wall.Found]) -> Iterator[tuple[str, bytes]]:
    """(file, log in the firmware's format) of each log with SHA-384 digests."""
    for blob in case.blobs:
        if len(blob.data) <= MAX_EVENT_LOG and _replayed(blob.data) is not None:
            yield blob.name, blob.data
    for entry in found:
        text = (entry.document or {}).get("cc_eventlog")
        data = decoded(text.encode()) if isinstance(text, str) and len(text) <= 2 * MAX_EVENT_LOG else None
        if data:
            yield entry.name, data
    for name, document in case.documents:
        events = document.get("event_log") if isinstance(document, dict) else document
        if isinstance(events, str):
            try:
                events = json.loads(events)
            except (ValueError, RecursionError):
                continue
        if isinstance(events, list) and events and all(isinstance(e, dict) and "imr" in e for e in events):
            log = _written(events[:_MAX_EVENTS])
            if log is not None:
                yield name, log


def _fitting(logs: list[tuple[str, bytes]], rtmrs: tuple[bytes, ...]) -> tuple[str, bytes] | None:
    """The log that replays to these RTMRs, else the first, so that its difference is told."""
    for entry in logs:
        values = _replayed(entry[1]) or {}
        if all(values.get(i + 1, bytes(48)) == rtmr for i, rtmr in enumerate(rtmrs)):
            return entry
    return logs[0] if logs else None


def _replayed(data: bytes) -> dict[int, bytes] | None:
    try:
        return eventlog.replay(eventlog.parse(data, padded=True), _ALGORITHM)
    except Malformed:
        return None


def _written(events: list[dict[str, Any]]) -> bytes | None:
    """A TCG2 log of dstack's events: register n + 1 is RTMR n."""
    algorithm = _SHA384.to_bytes(2, "little")
    header = b"Spec ID Event03\0" + bytes(4) + b"\x00\x02\x00\x02" + _u32(1) + algorithm + b"\x30\x00" + b"\0"
    log = _u32(0) + _u32(eventlog.EV_NO_ACTION) + bytes(20) + _u32(len(header)) + header
    try:
        for event in events:
            digest, data = bytes.fromhex(event["digest"]), bytes.fromhex(event.get("event_payload", ""))
            if len(digest) != 48 or not 0 <= event["imr"] <= 3:
                return None
            log += _u32(event["imr"] + 1) + _u32(event["event_type"]) + _u32(1) + algorithm + digest
            log += _u32(len(data)) + data
    except (KeyError, ValueError, TypeError, OverflowError, AttributeError):
        return None
    return log if len(log) <= MAX_EVENT_LOG else None


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "little")
