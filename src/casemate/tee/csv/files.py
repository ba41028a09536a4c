"""CSV evidence in files: reports and Hygon's certificates by their sizes and the usages that they name."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from casemate.errors import Malformed
from casemate.schema.endorsements import Anchor, Endorsements
from casemate.schema.evidence import Evidence
from casemate.tee.csv import report as wire
from casemate.tee.csv.wire import Parts, parse_evidence
from casemate.tee.files import Case, File, Gathered, statements
from casemate.wire.encoding import b64

CERTIFICATES = False  # an anchor for CSV is an HRK, and no X.509 certificate
_PAIR = wire.CA_SIZE + wire.CERTIFICATE_SIZE


def gather(case: Case) -> Gathered | None:
    """The reports of a case with HSK, CEK and HRK, or None."""
    found: dict[bytes, tuple[str, Evidence, Parts]] = {}
    for blob in case.blobs:
        _add(found, blob.name, Evidence(tee="csv", primary={"attestation_report": b64(blob.data)}))
    for statement in statements(case, "csv"):
        _add(found, statement.name, statement.evidence("csv"))
    if not found:
        return None
    (_, evidence, parts), *others = found.values()
    collateral, files = _papers(case.blobs)
    carried = parts.hsk is not None and parts.cek is not None
    return Gathered(
        evidence=evidence,
        endorsements=Endorsements(collateral=collateral),
        used=tuple(dict.fromkeys([*(name for name, *_ in found.values()), *files])),
        missing=() if carried or "hsk_cek" in collateral else ("HSK and CEK of the chip (hsk_cek, 2916 bytes)",),
        also=tuple((name, further) for name, further, _ in others),
        report_data=parts.report.report_data,
    )


def given(own: Case, platform_class: str, beside: Endorsements) -> Endorsements | None:
    """`beside` with the root certificates (HRK) of the relying party's own; None where `own` has none."""
    roots = [blob for blob in own.blobs if _usage(wire.authority, blob.data) == wire.HRK]
    anchors = [
        Anchor(certificate=root.data, platform_class=platform_class, name=f"{root.name} (--anchor)", tees=("csv",))
        for root in roots
    ]
    return msgspec.structs.replace(beside, anchors=(*beside.anchors, *anchors)) if anchors else None


def _add(found: dict[bytes, tuple[str, Evidence, Parts]], name: str, evidence: Evidence) -> None:
    try:
        parts = parse_evidence(evidence.primary)
    except Malformed:
        return
    found.setdefault(parts.report.signed, (name, evidence, parts))


def _papers(blobs: tuple[File, ...]) -> tuple[dict[str, bytes], list[str]]:
    """Collateral by the names that `verify` reads, and the files that it came from; HSK and CEK may lie apart."""
    parts: dict[str, bytes] = {}
    used: list[str] = []
    for blob in blobs:
        rest, taken = blob.data, []
        for name, usage in (("hrk", wire.HRK), ("hsk", wire.HSK)):
            first, behind = rest[: wire.CA_SIZE], rest[wire.CA_SIZE :]
            if len(behind) in (0, wire.CERTIFICATE_SIZE, _PAIR) and _usage(wire.authority, first) == usage:
                taken.append((name, first))
                rest = behind
        if _usage(wire.certificate, rest) == wire.CEK:
            taken.append(("cek", rest))
        for name, data in taken:
            parts.setdefault(name, data)
        used += [blob.name] if taken else []
    collateral = {"hsk_cek": parts["hsk"] + parts["cek"]} if "hsk" in parts and "cek" in parts else {}
    return collateral | ({"hrk": parts["hrk"]} if "hrk" in parts else {}), used


def _usage(parse: Callable[[bytes], wire.Certificate], data: bytes) -> int | None:
    try:
        return parse(data).usage
    except Malformed:
        return None
