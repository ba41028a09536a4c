"""SE evidence, its request and papers among files, told by what they hold; and what only the asker can give.

Root and key of the request come from the relying party alone (`given`), as pvattest takes them: beside the evidence
they count for nothing, because whoever has the request's key writes its answer. A request beside the evidence counts
when it opens with the given key; for an RSA key, which opens what anybody sealed, the request must be given too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from casemate.errors import Malformed
from casemate.schema.endorsements import Endorsements, Secrets
from casemate.schema.evidence import Evidence
from casemate.tee.files import Case, Gathered, statements
from casemate.tee.se import exchange, report
from casemate.tee.se.ask import KEY, REQUEST, RSA
from casemate.tee.se.measure import MAGIC, image_tags
from casemate.wire.encoding import b64

_RESPONSE = {"measurement", "additional_data", "user_data", "cuid", "image_hdr_tags"}
_REQUEST = {"request_blob", "image_hdr_tags"}
_KEY_SIZE = 32
_WANTED = (
    "the root that the host-key documents are to reach, by --anchor",
    "the request's key (32 bytes), or the private RSA key with the request that was made, by --anchor",
    "the attestation request that was made, beside the answer or by --anchor",
    "host-key documents, IBM's signing certificate and the revocation lists",
)


def gather(case: Case) -> Gathered | None:
    """The responses in the case, with request and papers; None where there is no response."""
    found: dict[str, tuple[str, dict[str, Any], bytes]] = {}
    for name, primary, blob in _responses(case):
        found.setdefault(str(primary.get("measurement")), (name, primary, blob))
    if not found:
        return None
    (name, primary, blob), *others = found.values()
    used, collateral = [name, *(further for further, *_ in others)], dict[str, bytes]()
    if blob:
        collateral[REQUEST] = blob
    for title, document in case.documents:
        if isinstance(document, dict) and document.keys() >= _REQUEST:
            collateral[REQUEST] = case.raw(title)
            used.append(title)
    collateral |= {f"crl.{number}": data for number, data in enumerate(case.crls)}
    tags = bool(primary.get("image_hdr_tags"))
    return Gathered(
        evidence=Evidence(tee="se", primary=primary),
        endorsements=Endorsements(certificates=case.certificates, collateral=collateral),
        used=tuple(dict.fromkeys(used)),
        missing=() if tags else ("the image, or its header, which pvattest's file leaves out",),
        wanted=_WANTED,
        also=tuple((further, Evidence(tee="se", primary=answer)) for further, answer, _ in others),
        report_data=_user(primary),
    )


def given(own: Case, platform_class: str, beside: Endorsements) -> Endorsements | None:
    """`beside` with the asker's key and request out of `own`; None where there is neither. Roots are plain anchors."""
    del platform_class
    secrets, collateral = dict[str, bytes](), dict(beside.collateral)
    for file in own.blobs:
        if len(file.data) == _KEY_SIZE or file.data.lstrip().startswith(b"-----BEGIN"):
            secrets[KEY if len(file.data) == _KEY_SIZE else RSA] = file.data
    requests = [own.raw(t) for t, d in own.documents if isinstance(d, dict) and d.keys() >= _REQUEST]
    requests += [file.data for file in own.blobs if file.data.startswith(exchange.MAGIC)]
    if requests:
        collateral[REQUEST] = requests[0]
    elif RSA in secrets and KEY not in secrets:
        collateral.pop(REQUEST, None)
    if not (secrets or requests):
        return None
    return msgspec.structs.replace(beside, collateral=collateral, secrets=Secrets(secrets))


def _responses(case: Case) -> Iterator[tuple[str, dict[str, Any], bytes]]:
    """(file, primary evidence, request where the file has it too)."""
    for statement in statements(case, "se"):
        if statement.primary.keys() >= _RESPONSE:
            yield statement.name, statement.primary, b""
    header = next(
        (f.data for f in case.blobs if MAGIC in f.data[:0x15008] and not f.data.startswith(exchange.MAGIC)), b""
    )
    for file in case.blobs:
        if not file.data.startswith(exchange.MAGIC):
            continue
        try:
            answer = exchange.parse(file.data)
            if answer.is_response:
                tags = image_tags(header).pack() if header else b""
                yield file.name, _primary(answer, tags), answer.request
        except Malformed:
            continue


def _primary(answer: exchange.Exchange, tags: bytes) -> dict[str, Any]:
    return {
        "measurement": b64(answer.measurement), "additional_data": b64(answer.additional),
        "user_data": b64(answer.user), "cuid": b64(answer.cuid), "image_hdr_tags": b64(tags),
        "encr_measurement_key": "", "encr_request_nonce": "",
    }  # fmt: skip


def _user(primary: dict[str, Any]) -> bytes | None:
    try:
        return report.parse_evidence(primary).user
    except Malformed:
        return None
