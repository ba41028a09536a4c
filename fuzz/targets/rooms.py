"""Evidence of further rooms: Hygon CSV, IBM SE, NVIDIA; and Nitro's images."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fuzz.target import One, target


def _asked() -> Any:
    from casemate.schema.request import Request

    return Request(report_data=b"r" * 48, initdata_digest=b"i" * 32)


def _primary(evidence: Any) -> bytes:
    from casemate.wire import jcs

    return jcs.canonical(evidence.primary)


def _eif() -> Iterable[bytes]:
    from casemate.tee.nitro.measure import eif
    from casemate.testing.eif import FakeImage

    yield FakeImage().build()
    yield FakeImage().signed(bytes.fromhex(eif(FakeImage().build()).values["pcr0"])).build()


@target("eif", _eif, errors=("Malformed", "Refused"), longest=65536)
def eif() -> One:
    """Enclave images, measured, with the checksum put right; a signature that does not hold is refused."""
    import zlib

    from casemate.tee.nitro.eif import HEADER
    from casemate.tee.nitro.measure import eif

    def one(data: bytes) -> object:
        head, body = data[: HEADER - 4], data[HEADER:]
        return eif(head + zlib.crc32(body, zlib.crc32(head)).to_bytes(4, "big") + body)

    return one


def _nsm() -> Iterable[bytes]:
    from casemate.wire import cbor

    yield cbor.dumps({"Attestation": {"document": b"a document"}})


@target("nsm-answer", _nsm, errors=("Malformed", "Unavailable"))
def nsm_answer() -> One:
    """Answers of the Nitro Security Module."""
    from casemate.tee.nitro.collect import answered

    return answered


def _sigstruct() -> Iterable[bytes]:
    from casemate.tee.sgx import sigstruct as wire

    yield wire.HEADER + bytes(8) + wire.HEADER_2 + bytes(472) + b"\3" + bytes(wire.SIZE - 513)


@target("sgx-sigstruct", _sigstruct)
def sgx_sigstruct() -> One:
    """Signatures of SGX enclaves."""
    from casemate.tee.sgx.sigstruct import parse

    return parse


def _csv() -> Iterable[bytes]:
    from casemate.testing.csv import FakeHygon

    yield FakeHygon().report(b"r" * 48)
    yield FakeHygon(version=2).report(b"r" * 48)


@target("csv-report", _csv)
def csv_report() -> One:
    """Hygon CSV reports."""
    from casemate.tee.csv import report

    return report.parse


def _csv_evidence() -> Iterable[bytes]:
    from casemate.testing.csv import FakeHygon

    yield _primary(FakeHygon().collect(_asked()))


@target("csv-evidence", _csv_evidence, longest=65536)
def csv_evidence() -> One:
    """CSV's part of an attestation message."""
    from casemate.tee.csv import wire
    from casemate.wire import jcs

    return lambda data: wire.parse_evidence(jcs.parse_object(data))


def _se_evidence() -> Iterable[bytes]:
    from casemate.testing.se import FakeMachine

    yield _primary(FakeMachine().collect(_asked()))


@target("se-evidence", _se_evidence, longest=65536)
def se_evidence() -> One:
    """SE's part of an attestation message."""
    from casemate.tee.se import report
    from casemate.wire import jcs

    return lambda data: report.parse_evidence(jcs.parse_object(data))


def _spdm() -> Iterable[bytes]:
    from casemate.testing.nvidia import FakeGpu

    for arch in ("HOPPER", "BLACKWELL", "LS10"):
        yield FakeGpu(arch).report(b"n" * 32)


@target("spdm-report", _spdm)
def spdm_report() -> One:
    """SPDM measurements of NVIDIA devices."""
    from casemate.tee.nvidia import report

    return report.parse


def _rim() -> Iterable[bytes]:
    from casemate.testing.nvidia import FakeGpu

    yield from (data for name, data in FakeGpu().endorsements.collateral.items() if name.endswith(".xml"))


@target("nvidia-rim", _rim, longest=65536)
def nvidia_rim() -> One:
    """Reference integrity manifests, before their signature."""
    from casemate.tee.nvidia import rim

    return rim.parse


def _cases() -> Iterable[bytes]:
    import json

    from casemate.tee import ROOMS
    from casemate.testing import case

    for tee in ROOMS:
        made = case.vendor(tee).collect(case.request(tee))
        yield json.dumps({"tee": tee, "primary": made.primary}).encode()


@target("verify-files", _cases, longest=1 << 16)
def verify_files() -> One:
    """Evidence of every TEE through the whole verifier: a verdict always, and never by a defect."""
    from datetime import UTC, datetime

    from casemate.tee.files import File
    from casemate.verifier.files import Question, verify

    question = Question(now=datetime(2026, 6, 1, tzinfo=UTC))

    def one(data: bytes) -> None:
        found = verify([File("evidence", data)], question)
        if "defect of the program" in found.reason:
            raise AssertionError(found.reason)

    return one
