"""SE evidence, its request and the asker's papers among files, told by what they hold.

The case must hold a key of the request, which only the asker has: so it is the asker's own folder, and a root that lies
in it is taken for the one that the asker trusts (as pvattest takes its `--root-ca`).
"""

from __future__ import annotations

from typing import Any

from casemate.crypto import chain
from casemate.errors import Malformed
from casemate.schema.endorsements import PRODUCTION, Anchor, Endorsements, Secrets
from casemate.schema.evidence import Evidence
from casemate.tee.files import Case, Gathered, statements
from casemate.tee.se import exchange, report
from casemate.tee.se.ask import KEY, REQUEST, RSA
from casemate.tee.se.measure import MAGIC, image_tags
from casemate.wire.encoding import b64

_RESPONSE = {"measurement", "additional_data", "user_data", "cuid", "image_hdr_tags"}
_REQUEST = {"request_blob", "image_hdr_tags"}


def gather(case: Case) -> Gathered | None:
    """The first response in the case, with request, key and papers; None where there is no response."""
    found = _response(case)
    if found is None:
        return None
    name, primary, blob = found
    used, collateral, secrets = [name], dict[str, bytes](), dict[str, bytes]()
    if blob:
        collateral[REQUEST] = blob
    for title, document in case.documents:
        if isinstance(document, dict) and document.keys() >= _REQUEST:
            collateral[REQUEST] = case.raw(title)
            used.append(title)
    for file in case.blobs:
        if len(file.data) == 32 or file.data.lstrip().startswith(b"-----BEGIN"):
            secrets[KEY if len(file.data) == 32 else RSA] = file.data
            used.append(file.name)
    collateral |= {f"crl.{number}": data for number, data in enumerate(case.crls)}
    return Gathered(
        evidence=Evidence(tee="se", primary=primary),
        endorsements=Endorsements(
            anchors=tuple(Anchor(certificate=der, platform_class=PRODUCTION, name=subject, tees=("se",))
                          for der, subject in _roots(case)),
            certificates=case.certificates, collateral=collateral, secrets=Secrets(secrets),
        ),
        used=tuple(dict.fromkeys(used)),
        missing=_missing(primary, collateral, secrets),
        report_data=_user(primary),
    )  # fmt: skip


def _missing(primary: dict[str, Any], collateral: dict[str, bytes], secrets: dict[str, bytes]) -> tuple[str, ...]:
    wanted = {
        "the attestation request that was made": REQUEST in collateral,
        "the key of that request (32 bytes), or the private RSA key behind it": bool(secrets),
        "the image, or its header, which pvattest's file leaves out": bool(primary.get("image_hdr_tags")),
    }
    return tuple(name for name, there in wanted.items() if not there)


def _response(case: Case) -> tuple[str, dict[str, Any], bytes] | None:
    """(file, primary evidence, request where the file has it too)."""
    for statement in statements(case, "se"):
        if statement.primary.keys() >= _RESPONSE:
            return statement.name, statement.primary, b""
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
                return file.name, _primary(answer, tags), answer.request
        except Malformed:
            continue
    return None


def _primary(answer: exchange.Exchange, tags: bytes) -> dict[str, Any]:
    return {
        "measurement": b64(answer.measurement), "additional_data": b64(answer.additional),
        "user_data": b64(answer.user), "cuid": b64(answer.cuid), "image_hdr_tags": b64(tags),
        "encr_measurement_key": "", "encr_request_nonce": "",
    }  # fmt: skip


def _roots(case: Case) -> list[tuple[bytes, str]]:
    """Certificates of authorities that signed themselves."""
    found = []
    for der in case.certificates:
        try:
            item = chain.load(der)
        except Malformed:
            continue
        if item.ca is not None and item.ca.ca and chain.is_root(der, item.key_digest):
            found.append((der, item.subject))
    return found


def _user(primary: dict[str, Any]) -> bytes | None:
    try:
        return report.parse_evidence(primary).user
    except Malformed:
        return None
