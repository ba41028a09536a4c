"""Collect in a confidential VM of Azure: the paravisor's report and a quote of its virtual TPM, over the TPM device.

The guest's words go into an NV index; the paravisor then makes its report anew, in another NV index, and takes a
moment for it. The certificate of the chip, or the quote of the trust domain, comes from Azure's metadata service over
a link-local address: the only network use of a collector, and replaceable (`Fetch`). Nothing that it answers is
believed here; a verifier judges it.

Sources: Microsoft's pages on guest attestation of confidential VMs; the crate az-cvm-vtpm.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from typing import Any

from casemate.errors import CasemateError, Unavailable, Unusable
from casemate.tee.hcl import report
from casemate.tee.tpm.collect import DEVICE, Device
from casemate.tee.tpm.report import ALG_RSASSA, parse_attest, parse_signature
from casemate.tee.tpm.wire import Tpm, TpmRefusal, Transport

HCL_REPORT, USER_DATA, AK = 0x01400001, 0x01400002, 0x81000003
METADATA = "169.254.169.254"
# Path of the metadata service, and the body of a POST or None for a GET; returns the body of the answer.
Fetch = Callable[[str, bytes | None], bytes]
_ATTEMPTS = 3
_WAIT_SECONDS, _POLL_SECONDS = 15.0, 0.25
_TIMEOUT = 20.0
_MAX_ANSWER = 256 << 10


def present(kind: int, transport: Transport | None = None) -> bool:
    """Whether this machine's TPM holds a paravisor's report of `kind` (`report.SNP` or `report.TDX`)."""
    try:
        if transport is not None:
            return report.kind_of(Tpm(transport).nv_read(HCL_REPORT, owner=True)) == kind
        if not os.access(DEVICE, os.R_OK | os.W_OK):
            return False
        with Device() as device:
            return report.kind_of(Tpm(device).nv_read(HCL_REPORT, owner=True)) == kind
    except CasemateError:
        return False


def collect(kind: int, report_data: bytes | None, transport: Transport | None = None) -> tuple[bytes, dict[str, Any]]:
    """(HCL report, `tpm_quote` in CoCo's form) over `report_data`; `Unusable` where there is no paravisor of `kind`."""
    if report_data is not None and not 1 <= len(report_data) <= report.USER_DATA_SIZE:
        raise Unusable(f"report data of {len(report_data)} bytes, 1 to {report.USER_DATA_SIZE} can be bound")
    if transport is not None:
        return _collect(Tpm(transport), kind, report_data)
    with Device() as device:
        return _collect(Tpm(device), kind, report_data)


def _collect(tpm: Tpm, kind: int, report_data: bytes | None) -> tuple[bytes, dict[str, Any]]:
    found = _waited(tpm, kind, None) if report_data is None else _fresh_report(tpm, kind, report_data)
    message, signature, pcrs = _quote(tpm, report_data or b"")
    return found, {"signature": signature.hex(), "message": message.hex(), "pcrs": [p.hex() for p in pcrs]}


def _report(tpm: Tpm) -> bytes:
    """The report as it lies there; a read takes several commands, between which the paravisor may write a new one."""
    try:
        return tpm.nv_read(HCL_REPORT, owner=True)
    except TpmRefusal as refusal:
        raise Unusable(f"the TPM holds no paravisor's report at NV index {HCL_REPORT:#x}",
                       hint="this is no confidential VM of Azure") from refusal  # fmt: skip


def _fresh_report(tpm: Tpm, kind: int, report_data: bytes) -> bytes:
    """Write the guest's words and wait until the report shows them; an old report is never taken for the new one."""
    report.parse(_report(tpm), kind)  # a TPM that is not Azure's gets no index of ours
    words = report_data.ljust(report.USER_DATA_SIZE, b"\0")
    _write(tpm, words)
    return _waited(tpm, kind, words)


def _waited(tpm: Tpm, kind: int, words: bytes | None) -> bytes:
    """A report that is of one piece, and shows `words` where there are any."""
    deadline = time.monotonic() + _WAIT_SECONDS
    while True:
        found = _report(tpm)
        if _complete(found, kind, words):
            return found
        if time.monotonic() > deadline:
            raise Unavailable("the paravisor did not make its report anew", hint="another process may write into it")
        time.sleep(_POLL_SECONDS)


def _complete(found: bytes, kind: int, words: bytes | None) -> bool:
    parsed = report.parse(found, kind)
    if not parsed.bound:
        return False  # read while it was written
    shown = report.parse_runtime_data(parsed.runtime_data).user_data
    return words is None or shown.ljust(report.USER_DATA_SIZE, b"\0") == words


def _write(tpm: Tpm, words: bytes) -> None:
    """Into the index, which is made when it is not there or was made for another size."""
    try:
        size = tpm.nv_size(USER_DATA)
    except TpmRefusal:
        size = 0
    if size != len(words):
        if size:
            tpm.nv_undefine(USER_DATA)
        tpm.nv_define(USER_DATA, len(words))
    tpm.nv_write(USER_DATA, words)


def _quote(tpm: Tpm, qualifying: bytes) -> tuple[bytes, bytes, list[bytes]]:
    """Quote, bare signature and PCRs of one moment."""
    for _ in range(_ATTEMPTS):
        message, wrapped = tpm.quote(AK, qualifying)
        pcrs = tpm.read_pcrs()
        if parse_attest(message).pcr_digest == hashlib.sha256(b"".join(pcrs)).digest():
            signature = parse_signature(wrapped)
            if signature.scheme != ALG_RSASSA or not isinstance(signature.value, bytes):
                raise Unusable("the paravisor's key signs with another scheme than RSASSA")
            return message, signature.value, pcrs
    raise Unavailable("the PCRs keep changing while they are quoted")


def metadata(path: str, body: bytes | None = None) -> bytes:
    """Ask Azure's metadata service. Link-local HTTP: the host answers, and what it says is judged by a verifier."""
    import http.client

    headers = {"Metadata": "true", "Accept": "application/json"}
    if body is not None:
        headers["Content-Type"] = "application/json"
    connection = http.client.HTTPConnection(METADATA, timeout=_TIMEOUT)
    try:
        connection.request("GET" if body is None else "POST", path, body=body, headers=headers)
        answer = connection.getresponse()
        found = answer.read(_MAX_ANSWER + 1)
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"Azure's metadata service did not answer: {error}") from error
    finally:
        connection.close()
    if answer.status != 200 or len(found) > _MAX_ANSWER:
        raise Unavailable(f"Azure's metadata service answered {answer.status} with {len(found)} bytes to {path}")
    return found
