"""Collect an SGX quote inside Gramine: its pseudo-files take the report data and give the quote.

Standard: Gramine documentation, "Attestation and Secret Provisioning", low-level interface.
"""

from __future__ import annotations

from pathlib import Path

from casemate.errors import Unavailable, Unusable
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request
from casemate.wire.encoding import b64

DEVICE = Path("/dev/attestation")


def present(*, device: Path = DEVICE) -> bool:
    """Whether this process is in an enclave under Gramine that can attest."""
    return (device / "attestation_type").exists()


def collect(request: Request, *, device: Path = DEVICE) -> Evidence:
    """Evidence over `request`; `Unusable` outside Gramine or without DCAP there."""
    data = request.report_data or b""
    if len(data) > 64:
        raise Unusable(f"report data of {len(data)} bytes, an SGX report holds 64")
    try:
        kind = (device / "attestation_type").read_text().strip()
        if kind != "dcap":
            raise Unusable(f"Gramine's attestation type is {kind[:32]!r}, `dcap` is wanted",
                           hint='set sgx.remote_attestation = "dcap" in the Gramine manifest')  # fmt: skip
        (device / "user_report_data").write_bytes(data.ljust(64, b"\0"))
        quote = (device / "quote").read_bytes()
    except FileNotFoundError as error:
        raise Unusable("this is no SGX enclave under Gramine", hint="no /dev/attestation is there") from error
    except OSError as error:
        raise Unavailable(f"Gramine gave no quote: {error.strerror}") from error
    return Evidence(tee="sgx", primary={"quote": b64(quote)})
