"""A CCA token and its platform's keys among files, told by what they hold.

Keys that lie beside the token are taken for the relying party's own, because nobody else could vouch for a platform:
put a key there only after it came from the platform's maker. The claims name the key in `vouched_by`.
"""

from __future__ import annotations

from typing import Any

from casemate.errors import Malformed
from casemate.schema.endorsements import Endorsements
from casemate.schema.evidence import Evidence
from casemate.tee.cca import keys, report
from casemate.tee.files import Case, Gathered, statements
from casemate.wire.encoding import b64


def gather(case: Case) -> Gathered | None:
    """The first token in the case, with every platform key; None where there is no token."""
    found = _token(case)
    if found is None:
        return None
    name, primary = found
    collateral: dict[str, bytes] = {}
    used = [name]
    for number, key in enumerate(case.keys):
        try:
            keys.public_key(key)
        except Malformed:
            continue
        collateral[f"{keys.KEY}.{number}"] = key
    for title, document in case.documents:
        if keys.is_trust_anchors(document):
            collateral[f"{keys.ANCHORS}.{title}"] = case.raw(title)
            used.append(title)
    used += [file.name for file in case.files if b"PUBLIC KEY" in file.data[:4096]]
    missing = () if collateral else ("the platform's public key (CPAK), in PEM, DER or as a trust-anchor document",)
    try:
        challenge = report.parse_evidence(primary).realm.challenge
    except Malformed:
        challenge = None
    return Gathered(
        evidence=Evidence(tee="cca", primary=primary),
        endorsements=Endorsements(collateral=collateral),
        used=tuple(dict.fromkeys(used)),
        missing=missing,
        report_data=challenge,
    )


def _token(case: Case) -> tuple[str, dict[str, Any]] | None:
    for file in case.blobs:
        if report.looks_like(file.data):
            return file.name, {"token": b64(file.data)}
    for statement in statements(case, "cca"):
        try:
            data = report.token_bytes(statement.primary)
        except Malformed:
            continue
        if report.looks_like(data):
            return statement.name, {"token": b64(data)}
    return None
