"""Reports and quotes of hardware, and the documents that their vendors sign."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fuzz.target import One, target


def _asked() -> Any:
    from casemate.schema.request import Request

    return Request(report_data=b"r" * 48, initdata_digest=b"i" * 32)


def _primary(*evidence: Any) -> Iterable[bytes]:
    from casemate.wire import jcs

    for one in evidence:
        yield jcs.canonical(one.primary)


def _snp() -> Iterable[bytes]:
    from casemate.testing.snp import FakeChip

    for product, version in (("Milan", 2), ("Genoa", 3), ("Turin", 5)):
        yield FakeChip(product, version=version).report(_asked())


@target("snp-report", _snp)
def snp_report() -> One:
    """SEV-SNP reports of every version."""
    from casemate.tee.snp import report

    return report.parse


def _snp_evidence() -> Iterable[bytes]:
    from casemate.testing.snp import FakeChip

    chip = FakeChip()
    yield from _primary(chip.collect(_asked()), chip.collect(_asked(), raw=True))


@target("snp-evidence", _snp_evidence, longest=65536)
def snp_evidence() -> One:
    """SEV-SNP's part of an attestation message."""
    from casemate.tee.snp import wire
    from casemate.wire import jcs

    return lambda data: wire.parse_evidence(jcs.parse_object(data))


def _quotes() -> Iterable[bytes]:
    from casemate.testing.dcap import FakePlatform

    sgx = FakePlatform("sgx")
    yield sgx.quote(sgx.enclave())
    for version in (4, 5):
        tdx = FakePlatform("tdx", version=version)
        yield tdx.quote(tdx.td())


@target("dcap-quote", _quotes)
def dcap_quote() -> One:
    """Quotes v3, v4 and v5."""
    from casemate.tee.dcap import quote

    return quote.parse


def _tdx() -> Iterable[bytes]:
    from casemate.testing.tdx import FakeTd

    yield from _primary(FakeTd().collect(_asked()))


@target("tdx-evidence", _tdx, longest=65536)
def tdx_evidence() -> One:
    """TDX's part of an attestation message."""
    from casemate.tee.tdx import report
    from casemate.wire import jcs

    return lambda data: report.parse_evidence(jcs.parse_object(data))


def _collateral() -> Iterable[bytes]:
    from casemate.testing.dcap import FakePlatform

    for tee in ("sgx", "tdx"):
        found = FakePlatform(tee).collateral
        yield b"\0" + found["tcb_info"]
        yield b"\1" + found["qe_identity"]
        signed = b'","signature":"' + found["tcb_info_signature"].hex().encode() + b'"}'
        yield b"\2" + b'{"tcbInfo":' + found["tcb_info"] + signed[1:]


@target("dcap-collateral", _collateral, longest=65536)
def dcap_collateral() -> One:
    """TCB info, QE identity and their envelopes; the first byte says which."""
    from casemate.tee.dcap import collateral

    def one(data: bytes) -> None:
        kind, rest = data[:1], data[1:]
        if kind == b"\0":
            collateral.tcb_info.__wrapped__(rest)
        elif kind == b"\1":
            collateral.isv_levels(collateral.qe_identity.__wrapped__(rest).tcb_levels)
        elif kind == b"\2":
            collateral.unwrap(rest, "tcbInfo")
        else:
            collateral.from_json(rest)

    return one


def _pck() -> Iterable[bytes]:
    from casemate.testing.dcap import pck_extension

    yield pck_extension()


@target("pck-extension", _pck)
def pck_extension() -> One:
    """The SGX extension of a PCK certificate."""
    from casemate.tee.dcap import pck

    return pck.parse


def _nitro() -> Iterable[bytes]:
    from casemate.testing.nitro import FakeEnclave

    yield FakeEnclave(user_data=b"u" * 16, public_key=b"k" * 32).document(b"nonce")


@target("nitro-document", _nitro)
def nitro_document() -> One:
    """Nitro's attestation document."""
    from casemate.tee.nitro import report

    return report.parse


def _tpm_parts(name: str) -> Iterable[bytes]:
    from casemate.tee.tpm import report
    from casemate.testing.tpm import FakeTpm

    yield getattr(report.parse_evidence(FakeTpm(initdata=b"x").collect(_asked()).primary), name)


@target("tpms-attest", lambda: _tpm_parts("message"))
def tpms_attest() -> One:
    """TPMS_ATTEST."""
    from casemate.tee.tpm import report

    return report.parse_attest


@target("tpmt-signature", lambda: _tpm_parts("signature"))
def tpmt_signature() -> One:
    """TPMT_SIGNATURE."""
    from casemate.tee.tpm import report

    return report.parse_signature


@target(
    "tpmt-public",
    lambda: [bytes.fromhex("0023000b00050072000000100018000b00030010") + b"\0 " + b"x" * 32 + b"\0 " + b"y" * 32],
)
def tpmt_public() -> One:
    """TPMT_PUBLIC."""
    from casemate.tee.tpm import report

    return report.parse_public


def _tpm() -> Iterable[bytes]:
    from casemate.testing.tpm import FakeTpm

    yield from _primary(FakeTpm(initdata=b"x").collect(_asked()))


@target("tpm-evidence", _tpm, longest=65536)
def tpm_evidence() -> One:
    """A TPM's part of an attestation message."""
    from casemate.tee.tpm import report
    from casemate.wire import jcs

    return lambda data: report.parse_evidence(jcs.parse_object(data))
