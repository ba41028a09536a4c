"""CCA tokens among files, told by what they hold; and the platform keys that the relying party gives beside them.

A key that lies beside a token is a candidate and no more: whoever sent the folder may have made both. It counts when
the relying party gives it (`given`), having it from the platform's maker.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import msgspec

from casemate.errors import Malformed
from casemate.schema.endorsements import Anchor, Endorsements
from casemate.schema.evidence import Evidence
from casemate.tee.cca import keys, report
from casemate.tee.files import Case, Gathered, statements
from casemate.wire.encoding import b64


def gather(case: Case) -> Gathered | None:
    """The tokens of a case, without any key; None where there is no token."""
    found = dict[bytes, tuple[str, dict[str, Any]]]()
    for name, data in _tokens(case):
        found.setdefault(data, (name, {"token": b64(data)}))
    if not found:
        return None
    (name, primary), *others = found.values()
    try:
        challenge = report.parse_evidence(primary).realm.challenge
    except Malformed:
        challenge = None
    return Gathered(
        evidence=Evidence(tee="cca", primary=primary),
        endorsements=Endorsements(),
        used=tuple(dict.fromkeys([name, *(further for further, _ in others)])),
        wanted=(f"the platform's public key (CPAK) from its maker, by --anchor{_candidates(case)}",),
        also=tuple((further, Evidence(tee="cca", primary=token)) for further, token in others),
        report_data=challenge,
    )


def given(own: Case, platform_class: str, beside: Endorsements) -> Endorsements | None:
    """`beside` with the relying party's platform keys and trust-anchor documents; None where `own` has none."""
    anchors = []
    for key in own.keys:
        try:
            keys.public_key(key)
        except Malformed:
            continue
        name = f"platform key sha256 {hashlib.sha256(key).hexdigest()[:16]}... (--anchor)"
        anchors.append(Anchor(certificate=key, platform_class=platform_class, name=name, tees=("cca",)))
    for title, document in own.documents:
        if keys.is_trust_anchors(document):
            data = msgspec.json.encode(document)
            keys.trust_anchors(data)  # what cannot be read is said now, and not when evidence is judged
            anchors.append(Anchor(certificate=data, platform_class=platform_class, name=title, tees=("cca",)))
    return msgspec.structs.replace(beside, anchors=(*beside.anchors, *anchors)) if anchors else None


def _candidates(case: Case) -> str:
    """The files that hold keys, for the message alone."""
    names = [title for title, document in case.documents if keys.is_trust_anchors(document)]
    names += [file.name for file in case.files if b"PUBLIC KEY" in file.data[:4096]]
    return f" (what lies beside the token counts only when you give it: {', '.join(names[:4])})" if names else ""


def _tokens(case: Case) -> Iterator[tuple[str, bytes]]:
    for file in case.blobs:
        if report.looks_like(file.data):
            yield file.name, file.data
    for statement in statements(case, "cca"):
        try:
            data = report.token_bytes(statement.primary)
        except Malformed:
            continue
        if report.looks_like(data):
            yield statement.name, data
