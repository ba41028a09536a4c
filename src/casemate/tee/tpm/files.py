"""TPM evidence in files: quotes with their keys, certificates, PCR lists and logs, loose or in one message.

Forms: the JSON object of CoCo and ours; TPMS_ATTEST, TPMT_SIGNATURE, TPMT_PUBLIC and a JSON list of PCRs beside each
other; go-tpm-tools' `Attestation` (a protobuf message, read here field by field). What belongs together is found by
what verifies, never by names: the signature by the key, the PCRs by the digest in the quote.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from casemate.boot import eventlog
from casemate.crypto import chain
from casemate.errors import Malformed
from casemate.schema.endorsements import Endorsements
from casemate.schema.evidence import Evidence
from casemate.tee.files import Case, Gathered, statements
from casemate.tee.tpm import report
from casemate.tee.tpm.judge import signed
from casemate.wire.encoding import b64

_MAGIC = report.MAGIC.to_bytes(4, "big") + report.TYPE_QUOTE.to_bytes(2, "big")
_BANKS = ("sha256", "sha384", "sha512", "sha1")  # the best bank of several quotes is judged
_CURVES = {report.CURVE_P256: ec.SECP256R1, 0x0004: ec.SECP384R1}
_FIELDS = 4096


_Quote = tuple[str, bytes, report.Attest]


@dataclass
class _Parts:
    """What lies there: keys and certificates are DER, PCR lists map index to value, `used` are files' names."""

    quotes: list[_Quote]
    signatures: list[bytes]
    keys: list[bytes]
    pcrs: list[dict[int, bytes]]
    logs: list[bytes]
    certificates: list[bytes]
    used: list[str]


def gather(case: Case) -> Gathered | None:
    """The quote of a case with the chain of its key and its log, or None."""
    pool = _loaded(case.certificates)
    found: dict[tuple[bytes, bytes], tuple[str, Evidence]] = {}
    for statement in statements(case, "tpm"):
        try:
            parsed = report.parse_evidence(statement.primary)
        except Malformed:
            continue
        if "hcl_report" in statement.primary:
            continue  # Azure's: its own room judges the whole
        primary = dict(statement.primary)
        if not parsed.ak_chain:
            primary["ak_chain"] = [b64(der) for der in _chain(pool, parsed.ak_public)]
        evidence = Evidence(tee="tpm", primary=primary, additional=statement.additional, initdata=statement.initdata)
        found.setdefault((parsed.message, parsed.signature), (statement.name, evidence))
    loose = _loose(case, pool)
    if not found:
        return loose
    (name, evidence), *others = found.values()
    if loose is not None:
        others += [(loose.used[0], loose.evidence), *loose.also]
    used = (name, *(further for further, _ in others), *(loose.used if loose is not None else ()))
    return Gathered(
        evidence=evidence, endorsements=_lists(case, pool), used=tuple(dict.fromkeys(used)), also=tuple(others),
        missing=loose.missing if loose is not None else (),
    )  # fmt: skip


def _loose(case: Case, pool: dict[bytes, chain.Certificate]) -> Gathered | None:
    """The quotes that lie there in pieces: the one of the best bank, and in `also` those that say anything else."""
    parts = _parts(case)
    if not parts.quotes:
        return None
    pool = _loaded([*case.certificates, *parts.certificates])
    parts.keys += [c.key for c in pool.values()]
    parts.quotes.sort(key=lambda entry: _bank(entry[2]))
    first, *rest = dict.fromkeys(parts.quotes)
    key, _ = _signer(first[1], parts)
    others = [quote for quote in rest if not _same_word(quote, first, key, parts)]
    whole = _one(case, pool, parts, first)
    return msgspec.structs.replace(
        whole, also=tuple((quote[0], _one(case, pool, parts, quote).evidence) for quote in others)
    )


def _same_word(quote: _Quote, first: _Quote, key: bytes, parts: _Parts) -> bool:
    """Whether a quote is the same TPM's answer to the same question from another bank: tools ask all banks at once."""
    banks = [q[2].selections[0][0] if q[2].selections else "" for q in (quote, first)]
    if banks[0] == banks[1] or quote[2].extra_data != first[2].extra_data:
        return False
    found, signature = _signer(quote[1], parts)
    return found == key and signed(report.Report(quote[1], signature, (), found, (), None))


def _one(case: Case, pool: dict[bytes, chain.Certificate], parts: _Parts, quote: _Quote) -> Gathered:
    """One quote with what belongs to it."""
    name, message, attest = quote
    bank = attest.selections[0][0] if attest.selections else ""
    key, signature = _signer(message, parts)
    chosen = attest.selections[0][1] if attest.selections else ()
    values = next((p for p in parts.pcrs if _quoted(p, chosen, bank, attest.pcr_digest)), {})
    missing = []
    for what, there in (("the AK that signed the quote", key), ("the signature over the quote", signature),
                        ("the PCR values of the quote", values)):  # fmt: skip
        if not there:
            missing.append(what)
    primary: dict[str, Any] = {
        "tpm_quote": {
            "signature": b64(signature),
            "message": b64(message),
            "pcrs": [values[i].hex() for i in chosen if i in values],
        },
        "ak_public": b64(key),
        "ak_chain": [b64(der) for der in _chain(pool, key)],
        "event_log": b64(parts.logs[0]) if parts.logs else "",
    }
    return Gathered(
        evidence=Evidence(tee="tpm", primary=primary),
        endorsements=_lists(case, pool),
        used=tuple(dict.fromkeys([name, *parts.used])),
        missing=tuple(missing),
        report_data=attest.extra_data,
    )


def _parts(case: Case) -> _Parts:
    parts = _Parts([], [], list(case.keys), [], [], [], [])
    for blob in case.blobs:
        if _take(blob.name, blob.data, parts) or _message(blob.name, blob.data, parts):
            parts.used.append(blob.name)
    for name, document in case.documents:
        values = _pcrs(document)
        if values:
            parts.pcrs.append(values)
            parts.used.append(name)
    return parts


def _take(name: str, data: bytes, parts: _Parts) -> bool:
    """Note one structure; whether it was one."""
    if data.startswith(_MAGIC):
        try:
            parts.quotes.append((name, data, report.parse_attest(data)))
        except Malformed:
            return False
        return True
    if 8 <= len(data) <= 1024:
        try:
            report.parse_signature(data)
        except Malformed:
            key = _public(data)
            if key:
                parts.keys.append(key)
                return True
        else:
            parts.signatures.append(data)
            return True
    try:
        eventlog.parse(data, padded=True)
    except Malformed:
        return False
    parts.logs.append(data)
    return True


def _message(name: str, data: bytes, parts: _Parts) -> bool:
    """go-tpm-tools' Attestation: 1 ak_pub, 2 quotes {1 quote, 2 raw_sig, 3 pcrs}, 3 event_log, 6 ak_cert, 7 others."""
    before = len(parts.quotes)
    try:
        fields = list(_protobuf(data))
        for number, value in fields:
            if number == 2 and isinstance(value, bytes):
                _quote(name, value, parts)
        if len(parts.quotes) == before:
            return False
        for number, value in fields:
            if isinstance(value, bytes) and number in (1, 3):
                _take(name, value, parts)
            elif isinstance(value, bytes) and number in (6, 7):
                parts.certificates.append(value)
    except Malformed:
        return len(parts.quotes) > before
    return True


def _quote(name: str, data: bytes, parts: _Parts) -> None:
    for number, value in _protobuf(data):
        if isinstance(value, bytes) and number in (1, 2):
            _take(name, value, parts)
        elif isinstance(value, bytes) and number == 3:  # {1 hash, 2 map {1 index, 2 value}}
            entries = [dict(_protobuf(entry)) for n, entry in _protobuf(value) if n == 2 and isinstance(entry, bytes)]
            parts.pcrs.append(
                {
                    int(e.get(1, 0)): v
                    for e in entries
                    if isinstance(v := e.get(2), bytes) and isinstance(e.get(1, 0), int)
                }
            )


def _protobuf(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, value) of a message; fields of fixed width are numbers too (protobuf encoding guide)."""
    at, count = 0, 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            if at >= len(data) or shift > 63:
                raise Malformed("protobuf: a number that does not end")
            byte, at = data[at], at + 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return value

    while at < len(data):
        count += 1
        tag = number()
        kind, size = tag & 7, {1: 8, 5: 4}.get(tag & 7, 0)
        if count > _FIELDS or tag >> 3 == 0 or kind not in (0, 1, 2, 5):
            raise Malformed("protobuf: not a message")
        if kind == 0:
            yield tag >> 3, number()
            continue
        size = size or number()
        if at + size > len(data):
            raise Malformed("protobuf: a field runs past the end")
        value, at = data[at : at + size], at + size
        yield tag >> 3, value if kind == 2 else int.from_bytes(value, "little")


def _public(data: bytes) -> bytes:
    """DER of a TPMT_PUBLIC, or b""."""
    try:
        public = report.parse_public(data)
        if public.type == report.ALG_RSA:
            numbers = rsa.RSAPublicNumbers(public.exponent, int.from_bytes(public.unique[0], "big"))
            return numbers.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        x, y = (int.from_bytes(part, "big") for part in public.unique)
        point = ec.EllipticCurvePublicNumbers(x, y, _CURVES[public.detail]()).public_key()
        return point.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (Malformed, ValueError, KeyError, UnsupportedAlgorithm):
        return b""


def _pcrs(document: Any) -> dict[int, bytes]:
    """A JSON list of PCRs: index (text) to hex."""
    if not isinstance(document, dict) or not 1 <= len(document) <= report.PCR_COUNT:
        return {}
    try:
        found = {int(index): bytes.fromhex(value) for index, value in document.items()}
    except (ValueError, TypeError):
        return {}
    return found if all(0 <= i < report.PCR_COUNT and len(v) in (20, 32, 48, 64) for i, v in found.items()) else {}


def _bank(attest: report.Attest) -> int:
    bank = attest.selections[0][0] if attest.selections else ""
    return _BANKS.index(bank) if bank in _BANKS else len(_BANKS)


def _quoted(values: dict[int, bytes], chosen: tuple[int, ...], bank: str, digest: bytes) -> bool:
    """Whether the digest is that of the chosen registers, which are of that bank."""
    if not chosen or any(i not in values or len(values[i]) != eventlog.SIZES.get(bank) for i in chosen):
        return False
    hasher = {32: hashlib.sha256, 48: hashlib.sha384, 64: hashlib.sha512}.get(len(digest))
    return hasher is not None and hasher(b"".join(values[i] for i in chosen)).digest() == digest


def _signer(message: bytes, parts: _Parts) -> tuple[bytes, bytes]:
    """(key, signature) that verify together; the first of each where none does, so that the refusal tells it."""
    for key in dict.fromkeys(parts.keys):
        for signature in parts.signatures:
            if signed(report.Report(message, signature, (), key, (), None)):
                return key, signature
    return next(iter(parts.keys), b""), next(iter(parts.signatures), b"")


def _loaded(ders: tuple[bytes, ...] | list[bytes]) -> dict[bytes, chain.Certificate]:
    found = {}
    for der in dict.fromkeys(ders):
        try:
            found[der] = chain.load(der)
        except Malformed:
            continue
    return found


def _chain(pool: dict[bytes, chain.Certificate], key: bytes) -> list[bytes]:
    """The certificate of the key and those above it, without the root: that is for the relying party to name."""
    path = [c for c in pool.values() if c.key == key][:1]
    while path and len(path) < report.MAX_CHAIN:
        above = next((c for c in pool.values() if c.names[0] == path[-1].names[1] and c not in path), None)
        if above is None or above.names[0] == above.names[1]:
            break
        path.append(above)
    return [c.der for c in path]


def _lists(case: Case, pool: dict[bytes, chain.Certificate]) -> Endorsements:
    subjects = {c.names[0] for c in pool.values()}
    found = {}
    for index, der in enumerate(case.crls):
        try:
            if chain.load_crl(der).issuer.public_bytes() in subjects:
                found[f"{index}.crl"] = der
        except Malformed:
            continue
    return Endorsements(collateral=found)
