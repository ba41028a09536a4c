"""SNP evidence in files: told by its size and its first fields, in whatever wrapping it lies.

Known wrappings: the bare 1184 bytes; the firmware's answer (32 bytes before it); a report with the host's certificate
table behind it; SCALE (a compact length before it); JSON of CoCo, of ours, or with the report as a string.
Certificates come as files, in a host's certificate table, or as PEM inside JSON (Azure's THIM).
"""

from __future__ import annotations

from collections.abc import Iterator

from casemate.crypto import chain
from casemate.errors import Malformed
from casemate.schema.endorsements import Endorsements
from casemate.schema.evidence import Evidence
from casemate.tee.files import Case, Gathered, decoded, kind, pem_blocks, statements, strings
from casemate.tee.snp import vek
from casemate.tee.snp.report import SIZE, VERSIONS, Report, certificate_table, parse
from casemate.tee.snp.wire import parse_evidence
from casemate.wire.encoding import b64

_ANSWER = 32  # MSG_REPORT_RSP: status, size, reserved
_COMPACT = ((SIZE << 2) | 1).to_bytes(2, "little")  # SCALE compact length
_FIXED_POLICY_BIT = 17
_MOST_TEXT = 64 << 10


def gather(case: Case) -> Gathered | None:
    """The report of a case with AMD's certificates and lists, or None."""
    found = list(_reports(case))
    if not found:
        return None
    first = found[0]
    distinct = {raw: (evidence, name) for name, raw, evidence, _ in reversed(found)}
    report = parse(first[1])
    pool = _certificates(case, [table for *_, table in found])
    subjects = {c.names[0] for c in pool.values()}
    crls = {f"{i}.crl": der for i, der in enumerate(case.crls) if _issuer(der) in subjects}
    return Gathered(
        evidence=first[2],
        endorsements=Endorsements(certificates=tuple(_ordered(pool, report)), collateral=crls),
        used=tuple(dict.fromkeys(name for name, *_ in found)),
        also=tuple((name, evidence) for raw, (evidence, name) in distinct.items() if raw != first[1]),
        report_data=report.report_data,
    )


def _reports(case: Case) -> Iterator[tuple[str, bytes, Evidence, bytes]]:
    """(file, report, evidence, certificate table) of every report in the case, those in files of their own first."""
    for blob in case.blobs:
        for raw, table in _inside(blob.data):
            evidence = Evidence(tee="snp", primary={"attestation_report": b64(raw), "cert_chain": None})
            yield blob.name, raw, evidence, table
    for statement in statements(case, "snp"):
        if "attestation_report" in statement.primary:
            try:
                yield statement.name, parse_evidence(statement.primary)[0], statement.evidence("snp"), b""
            except Malformed:
                continue
    for name, document in case.documents:
        for text in strings(document, SIZE):
            for raw, table in _inside(decoded(text[:_MOST_TEXT].encode()) or b""):
                evidence = Evidence(tee="snp", primary={"attestation_report": b64(raw), "cert_chain": None})
                yield name, raw, evidence, table


def _inside(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(report, certificate table behind it) in one of the wrappings."""
    if _is_report(data):
        rest = data[SIZE:].rstrip(b"\0")
        if not rest or _table(data[SIZE:]):
            yield data[:SIZE], data[SIZE:] if rest else b""
    elif data[:4] == bytes(4) and data[4:8] == SIZE.to_bytes(4, "little") and _is_report(data[_ANSWER:]):
        yield data[_ANSWER : _ANSWER + SIZE], data[_ANSWER + SIZE :]
    elif data[2:4] == _COMPACT and _is_report(data[4:]):
        yield data[4 : 4 + SIZE], b""


def _is_report(data: bytes) -> bool:
    """Version 2 to 5, the policy's fixed bit, a VMPL, a known algorithm: nothing else of that size looks so."""
    if len(data) < SIZE or int.from_bytes(data[:4], "little") not in VERSIONS:
        return False
    policy, algorithm = (int.from_bytes(data[a:b], "little") for a, b in ((0x08, 0x10), (0x34, 0x38)))
    return algorithm == 1 or bool(policy >> _FIXED_POLICY_BIT & 1)


def _table(data: bytes) -> list[tuple[str, bytes]]:
    try:
        return certificate_table(data)
    except Malformed:
        return []


def _certificates(case: Case, tables: list[bytes]) -> dict[bytes, chain.Certificate]:
    """Every certificate of the case that can be read."""
    pool = list(case.certificates)
    for data in (*tables, *(blob.data for blob in case.blobs)):
        pool += [der for what, der in _table(data) if what != "CRL"] if data else []
    for _, document in case.documents:
        for text in strings(document):
            pool += [der for what, der in pem_blocks(text.encode()) if what == "certificate"]
            inner = decoded(text.encode()) if text.startswith("MII") and len(text) <= _MOST_TEXT else None
            pool += [inner] if inner and kind(inner) == "certificate" else []
    found = {}
    for der in dict.fromkeys(pool):
        try:
            found[der] = chain.load(der)
        except Malformed:
            continue
    return found


def _ordered(pool: dict[bytes, chain.Certificate], report: Report) -> list[bytes]:
    """The endorsement key that fits the report first: of several that lie there, it is the one that is meant."""

    def distance(der: bytes) -> int:
        if not vek.kind_of(pool[der]):
            return 3
        try:
            key = vek.read(der)
        except Malformed:
            return 2
        chip = key.hardware_id is None or key.hardware_id.ljust(64, b"\0") == report.chip_id
        return 0 if chip and key.tcb == report.reported_tcb else 1

    return sorted(pool, key=distance)


def _issuer(der: bytes) -> bytes:
    try:
        return chain.load_crl(der).issuer.public_bytes()
    except Malformed:
        return b""
