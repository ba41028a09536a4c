"""Azure's evidence in files: one JSON document, or its pieces side by side (HCL report, TPM quote, hardware's paper).

Pieces: a report is told by its magic; a quote is JSON with `message`, `signature` and `pcrs`, or the same three as
byte strings behind 64-bit lengths (az-cvm-vtpm's binary form). What the hardware's room knows of, it finds itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from casemate.errors import Malformed
from casemate.schema.evidence import Evidence
from casemate.tee.files import Case, File, Gathered, statements
from casemate.tee.hcl import report as wire
from casemate.tee.hcl.verify import signed
from casemate.tee.tpm.report import PCR_COUNT, parse_attest
from casemate.wire.cursor import Cursor

_MOST = 8
_QUOTE = ("message", "signature", "pcrs")


@dataclass(frozen=True)
class Found:
    """Evidence in files: `name` is the first file's, `used` all of them."""

    name: str
    evidence: Evidence
    sent: wire.Sent
    used: tuple[str, ...]


def machines(case: Case, tee: str, member: str, kind: int, papers: Sequence[File] | None = None) -> list[Found]:
    """Every evidence of `tee` in the case; `papers` are what loose pieces need as `member`, the best first."""
    found = []
    for statement in statements(case, tee):
        sent = _sent(statement.primary, member, kind)
        if sent is not None:
            found.append(Found(statement.name, statement.evidence(tee), sent, (statement.name,)))
    if papers or papers is None:
        found += _loose(case, tee, member, kind, papers or ())
    return found


def _loose(case: Case, tee: str, member: str, kind: int, papers: Sequence[File]) -> list[Found]:
    """Evidence in pieces: each quote with the report whose key signed it; what is left over, with the first of these.

    What does not belong together is put together too: the room refuses it, and nothing that lies there goes unseen.
    """
    reports = [blob for blob in case.blobs if wire.kind_of(blob.data) == kind]
    quotes = [*_json_quotes(case), *_binary_quotes(case)]
    if not (reports and quotes):
        return []

    def piece(report: File, quote: tuple[str, dict[str, Any]]) -> Found | None:
        """Report and quote as one evidence, with the paper that speaks of this report."""
        primary: dict[str, Any] = {"tpm_quote": quote[1], "hcl_report": list(report.data)}
        used = [report.name, quote[0]]
        if papers:
            bound = wire.report_data(report.data, kind)
            paper = next((p for p in papers if bound and bound in p.data), papers[0])
            primary[member] = list(paper.data)
            used.append(paper.name)
        sent = _sent(primary, member, kind)
        evidence = Evidence(tee=tee, primary={"version": 1} | primary)
        return None if sent is None else Found(report.name, evidence, sent, tuple(used))

    pairs: list[Found] = []
    for quote in quotes[:_MOST]:
        tried = [piece(report, quote) for report in reports[:_MOST]]
        known = [found for found in tried if found is not None]
        pairs += [found for found in known if _belongs(found, kind)][:1] or known[:1]
    seen = {found.sent.report for found in pairs}
    left = [piece(report, quotes[0]) for report in reports if report.data not in seen]
    return [*pairs, *(found for found in left if found is not None)]


def _belongs(piece: Found, kind: int) -> bool:
    try:
        data = wire.parse_runtime_data(wire.parse(piece.sent.report, kind).runtime_data)
    except Malformed:
        return False
    return signed(data, piece.sent)


def with_hardware(case: Case, found: Found, hardware: bytes, gather: Callable[[Case], Gathered | None]) -> Gathered:
    """What the hardware's room gathers when its evidence lies in the case as a file of its own."""
    blob = File(found.name, hardware)
    inside = gather(msgspec.structs.replace(case, blobs=(blob, *case.blobs)))
    if inside is None:
        raise Malformed(f"{found.name}: the hardware's evidence inside cannot be read")
    return inside


def compose(found: list[Found], inside: Gathered, covers: tuple[str, ...]) -> Gathered:
    """The first evidence with the hardware's endorsements; another hardware report beside it is not covered."""
    first = found[0]
    distinct = {f.sent: f for f in reversed(found)}
    return Gathered(
        evidence=first.evidence,
        endorsements=inside.endorsements,
        used=tuple(dict.fromkeys([*(name for f in found for name in f.used), *inside.used])),
        missing=inside.missing,
        covers=covers[1:] if inside.also else covers,
        also=tuple((f.name, f.evidence) for sent, f in distinct.items() if sent != first.sent),
        report_data=parse_attest(first.sent.message).extra_data,
    )


def _sent(primary: dict[str, Any], member: str, kind: int) -> wire.Sent | None:
    try:
        sent = wire.parse_evidence(primary, member)
        wire.parse(sent.report, kind)
        parse_attest(sent.message)
    except Malformed:
        return None
    return sent


def _json_quotes(case: Case) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for name, document in case.documents:
        inner = document.get("tpm_quote", document) if isinstance(document, dict) else None
        if isinstance(inner, dict) and all(part in inner for part in _QUOTE):
            found.append((name, inner))
    return found


def _binary_quotes(case: Case) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for blob in case.blobs:
        read = Cursor(blob.data, "TPM quote")
        try:
            signature, message = (list(read.take(min(read.u64(), 1024))) for _ in range(2))
            pcrs = [list(read.take(32)) for _ in range(min(read.u64(), PCR_COUNT))]
            read.end()
        except Malformed:
            continue
        found.append((blob.name, {"signature": signature, "message": message, "pcrs": pcrs}))
    return found
