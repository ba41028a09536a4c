"""A record of a period for people who must show it: who got which key, on what proof. From verified receipts alone.

What a receipt leaves closed is told as such; what stands in the report was committed to when it happened.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from casemate.ledger.history import text
from casemate.ledger.receipt import Verified

CLOSED = "(not disclosed)"
_PROOF = ("tee", "platform", "evidence", "collateral")
_ABOUT = ("app", "release", "resource", "version", "lease", "key")
_SUMMARY = "refusals"


def record(
    found: Iterable[tuple[str, Verified]], *, since: str, until: str, missing: list[list[int]] | None
) -> dict[str, Any]:
    """The report as plain data, from (receipt id, verified receipt).

    `missing`: ranges of numbers that are entries of the period and have no receipt here; None when nobody looked.
    """
    rows = sorted(found, key=lambda one: one[1].index)
    grants = [_decision(number, one) for number, one in rows if one.entry.allowed is True]
    refused = [(number, one) for number, one in rows if one.entry.allowed is False]
    return {
        "period": {"since": since, "until": until},
        "entries": len(rows),
        "numbers": {"first": rows[0][1].index, "last": rows[-1][1].index} if rows else None,
        "missing": missing,
        "grants": grants,
        "refusals": [_decision(number, one) for number, one in refused if one.entry.kind != _SUMMARY],
        "acts": [_act(number, one) for number, one in rows if one.entry.allowed is None],
        "strangers": [
            {"minute": one.fields.get("minute", CLOSED), "counts": one.fields.get("counts", {})}
            for _, one in refused
            if one.entry.kind == _SUMMARY
        ],
    }


def markdown(report: dict[str, Any], *, origin: str) -> str:
    """The report as a page."""
    period, numbers = report["period"], report["numbers"]
    span = f", numbers {numbers['first']} to {numbers['last']}" if numbers else ""
    lines = [
        "# Record of key releases",
        "",
        f"Period: {period['since']} to {period['until']}  ",
        f"Log: {origin}  ",
        f"Entries: {report['entries']}{span}  ",
        f"Complete: {_complete(report)}",
        "",
        "Every line was verified: its entry stands in the log below a checkpoint signed by the log's key.",
        "",
        *_section("Keys and admissions that were granted", _GRANTS, report["grants"]),
        *_section("Refusals of genuine evidence", _REFUSALS, report["refusals"]),
        *_section("Acts of admins", _ACTS, report["acts"]),
        *_section("Refusals before evidence was genuine, by the minute", _STRANGERS, report["strangers"]),
    ]
    return "\n".join(lines).rstrip() + "\n"


_GRANTS = ("time", "kind", "resource", "version", "app", "release", "key", *_PROOF, "passed", "receipt")
_REFUSALS = ("time", "kind", "resource", "app", "release", "key", "tee", "failed", "receipt")
_ACTS = ("time", "who", "act", "facts", "receipt")
_STRANGERS = ("minute", "counts")


def _decision(number: str, one: Verified) -> dict[str, Any]:
    known = {name: _field(one, name) for name in (*_ABOUT, *_PROOF, "passed", "failed")}
    head = {"time": text(one.entry.time), "number": one.index, "receipt": number, "kind": one.entry.kind}
    return {**head, **{name: value for name, value in known.items() if value is not None}}


def _act(number: str, one: Verified) -> dict[str, Any]:
    facts = {name: value for name, value in one.fields.items() if name not in ("who", "id")}
    closed = sorted(one.entry.commitments.keys() - one.fields.keys())
    head = {"time": text(one.entry.time), "number": one.index, "receipt": number, "act": one.entry.kind}
    return {**head, "who": _field(one, "who"), "facts": {**facts, **dict.fromkeys(closed, CLOSED)}}


def _field(one: Verified, name: str) -> Any:
    """The field's value, or that it was kept closed; None where the entry has no such field."""
    if name in one.fields:
        return one.fields[name]
    return CLOSED if name in one.entry.commitments else None


def _complete(report: dict[str, Any]) -> str:
    missing = report["missing"]
    if missing is None:
        return "not asked; the report is of chosen receipts"
    return "no number is missing" if not missing else "MISSING " + ", ".join(f"{a} to {b}" for a, b in missing)


def _section(title: str, columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> list[str]:
    if not rows:
        return [f"## {title}", "", "None.", ""]
    used = [name for name in columns if any(name in row for row in rows)]
    table = ["| " + " | ".join(used) + " |", "|" + " --- |" * len(used)]
    table += ["| " + " | ".join(_cell(row.get(name, "")) for name in used) + " |" for row in rows]
    return [f"## {title} ({len(rows)})", "", *table, ""]


def _cell(value: Any) -> str:
    if isinstance(value, list):
        value = ", ".join(item["rule"] if isinstance(item, dict) and "rule" in item else str(item) for item in value)
    elif isinstance(value, dict):
        value = ", ".join(f"{k}: {v if isinstance(v, str | int) else json.dumps(v)}" for k, v in value.items())
    return "".join(_mark(c) for c in str(value))


def _mark(character: str) -> str:
    """One character that can neither break a table nor become markup."""
    if character in "|<>`*_[]\\#":
        return f"&#{ord(character)};" if character in "|<>" else "\\" + character
    return character if character.isprintable() else "?"
