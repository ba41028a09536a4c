"""Nitro evidence in files: COSE documents whose payload is an attestation document, as they are or in JSON."""

from __future__ import annotations

from casemate.errors import Malformed
from casemate.schema.endorsements import Endorsements
from casemate.schema.evidence import Evidence
from casemate.tee.files import Case, Gathered, statements
from casemate.tee.nitro import report
from casemate.wire.encoding import b64


def gather(case: Case) -> Gathered | None:
    """The documents of a case, or None. A document carries its own certificates."""
    found: dict[bytes, tuple[str, Evidence, report.Document]] = {}
    for blob in case.blobs:
        try:
            document = report.parse(blob.data)
        except Malformed:
            continue
        evidence = Evidence(tee="nitro", primary={"document": b64(blob.data)})
        found.setdefault(blob.data, (blob.name, evidence, document))
    for statement in statements(case, "nitro"):
        try:
            document = report.parse_evidence(statement.primary)
        except Malformed:
            continue
        key = document.message.payload + document.message.signature
        found.setdefault(key, (statement.name, statement.evidence("nitro"), document))
    if not found:
        return None
    (_, evidence, first), *others = found.values()
    return Gathered(
        evidence=evidence,
        endorsements=Endorsements(),
        used=tuple(name for name, *_ in found.values()),
        also=tuple((name, further) for name, further, _ in others),
        report_data=first.nonce,
    )
