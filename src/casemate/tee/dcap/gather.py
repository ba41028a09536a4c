"""DCAP evidence in files: quotes of enclaves and TDs, and Intel's collateral in the forms that it circulates in.

Collateral comes as one JSON object (quote libraries), as the C structure `sgx_ql_qve_collateral_t` written out, or as
the service's own answers: `{"tcbInfo", "signature"}`, `{"enclaveIdentity", "signature"}`, with certificates and lists
beside them. Of several sets the one of the quote's platform counts, then the one with the latest rules.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from casemate.crypto import chain, ecdsa, pem
from casemate.errors import Malformed
from casemate.schema.endorsements import Endorsements
from casemate.schema.evidence import Evidence
from casemate.tee.dcap import collateral, pck
from casemate.tee.dcap.quote import CERTIFIED_BY_PCK_CHAIN, KEY_P256, MAX_QUOTE, Quote, parse
from casemate.tee.dcap.verify import VENDOR
from casemate.tee.files import Case, Gathered, decoded, statements, strings
from casemate.wire.encoding import b64

_LEAST = 1000  # bytes; no quote is shorter
_VENDOR_AT = 12  # in a quote's header
_SEVEN = 7
_POINTERS = 8 + 16 * _SEVEN  # version, TEE type, seven of pointer and size
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Found:
    """A quote in a file. `document` is the JSON object around it, if there was one."""

    name: str
    raw: bytes
    quote: Quote
    document: dict[str, Any] | None = None


def quotes(case: Case, tee: str, kind: type) -> list[Found]:
    """The quotes whose body is of that kind, those in files of their own first."""
    found = [
        Found(blob.name, raw, quote)
        for blob in case.blobs
        for raw in _inside(blob.data)
        if (quote := _quote(raw, kind))
    ]
    for statement in statements(case, tee):
        for raw in _texts([statement.primary.get("quote")]):
            if quote := _quote(raw, kind):
                found.append(Found(statement.name, raw, quote, statement.primary))
    for name, document in case.documents:
        for raw in _texts(strings(document, _LEAST)):
            if quote := _quote(raw, kind):
                found.append(Found(name, raw, quote))
    return found


def gathered(case: Case, tee: str, found: list[Found], primaries: dict[bytes, dict[str, Any]]) -> Gathered:
    """What to judge: `primaries` are the primary evidence objects by the bytes that the quote signs."""
    first = found[0]
    names = {f.quote.signed + f.quote.signature: f.name for f in reversed(found)}
    also = [
        (names[key], Evidence(tee=tee, primary=primary))
        for key, primary in primaries.items()
        if key != first.quote.signed + first.quote.signature
    ]
    documents, used = _collateral(case, first.quote)
    key = first.quote.signed + first.quote.signature
    return Gathered(
        evidence=Evidence(tee=tee, primary=primaries[key]),
        endorsements=Endorsements(certificates=tuple(_pck_chain(case, first.quote)), collateral=documents),
        used=tuple(dict.fromkeys([*(f.name for f in found), *used])),
        missing=() if documents else ("Intel's collateral for this quote",),
        also=tuple(also),
        report_data=first.quote.body.report_data,
    )


def primary(found: Found) -> dict[str, Any]:
    """The primary evidence object without a log."""
    return {"quote": b64(found.raw)}


def _inside(data: bytes) -> Iterator[bytes]:
    """The file itself, or the quote in some envelope: a header of the SDK that made it, a message of another format."""
    if int.from_bytes(data[2:4], "little") == KEY_P256:
        yield data
        return
    at = data.find(VENDOR)
    if at >= _VENDOR_AT and len(data) <= 2 * MAX_QUOTE:
        yield data[at - _VENDOR_AT :][:MAX_QUOTE]


def _quote(data: bytes, kind: type) -> Quote | None:
    if len(data) < _LEAST or int.from_bytes(data[:2], "little") not in (3, 4, 5):
        return None
    if int.from_bytes(data[2:4], "little") != KEY_P256:
        return None
    try:
        quote = parse(data)
    except Malformed:
        return None
    return quote if isinstance(quote.body, kind) else None


def _texts(items: Iterable[Any]) -> Iterator[bytes]:
    for text in items:
        if isinstance(text, str) and len(text) <= 1 << 18:
            yield decoded(text.encode()) or b""


def _collateral(case: Case, quote: Quote) -> tuple[dict[str, bytes], list[str]]:
    """The best set of documents for this quote and the files it came from."""
    fmspc = _fmspc(case, quote)
    sets = [*_objects(case), *_structures(case)]
    sets.sort(key=lambda entry: _rank(entry[1], fmspc), reverse=True)
    name, best = sets[0] if sets else ("", {})
    loose, names = _loose(case, quote, fmspc)
    if not best or (_rank(best, fmspc)[:2] < _rank(loose, fmspc)[:2]):
        return loose, names
    return {**loose, **best}, [name]


def _rank(documents: dict[str, bytes], fmspc: str) -> tuple[bool, int, int, datetime]:
    """About this platform; how many documents are there; the number of its rules; when it was issued."""
    try:
        info = collateral.tcb_info(documents.get("tcb_info", b""))[0]
    except Malformed:
        return False, 0, 0, _NEVER
    there = -len(collateral.missing(documents))
    return info.fmspc.lower() == fmspc, there, info.tcb_evaluation_data_number, info.issue_date


def _objects(case: Case) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Sets that are one JSON object, alone or under `collateral`."""
    for name, document in case.documents:
        inner = document.get("collateral", document) if isinstance(document, dict) else None
        if isinstance(inner, dict) and "tcb_info" in inner:
            try:
                yield name, collateral.from_json(json.dumps(inner).encode())
            except Malformed:
                continue


def _structures(case: Case) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Sets that are `sgx_ql_qve_collateral_t` with what it points to behind it (SGX QuoteLib, qve_header.h)."""
    order = ("pck_crl_issuer_chain", "root_ca_crl", "pck_crl", "tcb_info_issuer_chain", "tcb_info",
             "qe_identity_issuer_chain", "qe_identity")  # fmt: skip
    for blob in case.blobs:
        data = blob.data
        words = [int.from_bytes(data[8 + 8 * i : 16 + 8 * i], "little") for i in range(2 * _SEVEN)]
        sizes = words[1::2]
        if len(data) < _POINTERS or sum(sizes) + _POINTERS != len(data) or data[0] not in (1, 3, 4):
            continue
        parts, at = {}, _POINTERS
        for name, size in zip(order, sizes, strict=True):
            parts[name], at = data[at : at + size].rstrip(b"\0"), at + size
        try:
            yield blob.name, _unwrapped(parts)
        except Malformed:
            continue


def _unwrapped(parts: dict[str, bytes]) -> dict[str, bytes]:
    found = {name: data for name, data in parts.items() if name.endswith("_chain")}
    for name in ("pck_crl", "root_ca_crl"):
        found[name] = decoded(parts[name]) or parts[name]
    for name, member in (("tcb_info", "tcbInfo"), ("qe_identity", "enclaveIdentity")):
        found[name], found[f"{name}_signature"] = collateral.unwrap(parts[name], member)
    return found


def _loose(case: Case, quote: Quote, fmspc: str) -> tuple[dict[str, bytes], list[str]]:
    """The service's answers beside certificates and lists, put together."""
    certificates = _loaded(case.certificates)
    found: dict[str, bytes] = {}
    names: list[str] = []
    for name, member in (("tcb_info", "tcbInfo"), ("qe_identity", "enclaveIdentity")):
        answers = []
        for file, document in case.documents:
            if isinstance(document, dict) and member in document and "signature" in document:
                try:
                    answers.append((*collateral.unwrap(case.raw(file), member), file))
                except Malformed:
                    continue
        if answers:
            best = max(answers, key=lambda a: _rank({"tcb_info": a[0]}, fmspc) if name == "tcb_info" else _age(a[0]))
            found[name], found[f"{name}_signature"] = best[:2]
            names.append(best[2])
            issuers = _signers(certificates, *best[:2])
            if issuers:
                found[f"{name}_issuer_chain"] = _pem(issuers)
    return found | _lists(case, certificates, quote), names


def _age(identity: bytes) -> tuple[int, datetime]:
    try:
        found = collateral.qe_identity(identity)
    except Malformed:
        return 0, _NEVER
    return found.tcb_evaluation_data_number, found.issue_date


def _signers(certificates: list[chain.Certificate], text: bytes, signature: bytes) -> list[chain.Certificate]:
    """The certificate that signed `text` (else the first that may), and its issuer."""
    signers = [c for c in certificates if "TCB Signing" in c.subject]
    signers.sort(key=lambda c: not ecdsa.verify_p256(c.cert.public_key(), signature, text))
    return _upward(certificates, signers[0]) if signers else []


def _upward(certificates: list[chain.Certificate], leaf: chain.Certificate) -> list[chain.Certificate]:
    """The chain above `leaf`, each issuer being the first of its name whose key signed."""
    path = [leaf]
    while len(path) < chain.MAX_LENGTH and path[-1].names[0] != path[-1].names[1]:
        above = [c for c in certificates if c.names[0] == path[-1].names[1] and c not in path]
        if not above:
            break
        path.append(next((c for c in above if _issued(path[-1], c)), above[0]))
    return path


def _issued(below: chain.Certificate, above: chain.Certificate) -> bool:
    key = above.cert.public_key()
    try:
        signature = _raw(below.cert.signature)
    except ValueError:
        return False
    return ecdsa.verify_p256(key, signature, below.cert.tbs_certificate_bytes)


def _raw(signature: bytes) -> bytes:
    """A DER signature on P-256 as r | s."""
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

    r, s = decode_dss_signature(signature)
    if max(r, s) >> 256:
        raise ValueError("not a signature on P-256")
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def _lists(case: Case, certificates: list[chain.Certificate], quote: Quote) -> dict[str, bytes]:
    """The newest list of the root and of the PCK authority."""
    links = _loaded(_pck_chain(case, quote) or _embedded(quote))
    issuers = {"pck_crl": {c.names[1] for c in links[:1]}, "root_ca_crl": {c.names[1] for c in links[1:]}}
    issuers["root_ca_crl"] |= {c.names[1] for c in certificates if "TCB Signing" in c.subject}
    found: dict[str, tuple[datetime, bytes]] = {}
    for der in case.crls:
        try:
            crl = chain.load_crl(der)
        except Malformed:
            continue
        for name, wanted in issuers.items():
            entry = (crl.last_update_utc, der)
            if crl.issuer.public_bytes() in wanted and entry > found.get(name, (_NEVER, b"")):
                found[name] = entry
    return {name: der for name, (_, der) in found.items()}


def _embedded(quote: Quote) -> list[bytes]:
    if quote.certification_type != CERTIFIED_BY_PCK_CHAIN:
        return []
    try:
        return list(pem.certificates(quote.certification, "PCK chain"))
    except Malformed:
        return []


def _pck_chain(case: Case, quote: Quote) -> list[bytes]:
    """The PCK certificates beside a quote that has none inside, leaf first."""
    if quote.certification_type == CERTIFIED_BY_PCK_CHAIN:
        return []
    certificates = _loaded(case.certificates)
    leaves = [c for c in certificates if "PCK Certificate" in c.subject]
    return [c.der for c in _upward(certificates, leaves[0])] if leaves else []


def _fmspc(case: Case, quote: Quote) -> str:
    for der in (_embedded(quote) or _pck_chain(case, quote))[:1]:
        try:
            return pck.read(der).fmspc.hex()
        except Malformed:
            break
    return ""


def _loaded(ders: Iterable[bytes]) -> list[chain.Certificate]:
    found = []
    for der in ders:
        try:
            found.append(chain.load(der))
        except Malformed:
            continue
    return found


def _pem(certificates: Iterable[chain.Certificate]) -> bytes:
    return b"".join(x509.load_der_x509_certificate(c.der).public_bytes(Encoding.PEM) for c in certificates)
