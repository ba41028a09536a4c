"""Collect TPM evidence on this machine: one NV read, one quote, three PCR reads, and the firmware's log.

Runs in the guest, so it imports nothing but the layouts: no certificates are parsed, no keys are made. The AK and its
certificate chain were put into the TPM when its state was prepared (persistent handle and NV index in `report`).
"""

from __future__ import annotations

import hashlib
import os

from casemate.crypto.pins import subject_public_key_info
from casemate.errors import Malformed, Unavailable, Unusable
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request
from casemate.tee.tpm import report
from casemate.tee.tpm.wire import MAX_RESPONSE, Tpm, TpmRefusal, Transport
from casemate.wire.cursor import Cursor
from casemate.wire.encoding import b64

DEVICE = "/dev/tpmrm0"
EVENT_LOG = "/sys/kernel/security/tpm0/binary_bios_measurements"
_ATTEMPTS = 3


class Device:
    """The kernel's TPM device (with its resource manager) as a transport; close it after use."""

    def __init__(self, path: str = DEVICE) -> None:
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise Unusable(
                f"{path}: {error.strerror}", hint="this machine has no TPM, or the agent may not use it"
            ) from error

    def transmit(self, command: bytes) -> bytes:
        """One command, one response."""
        try:
            os.write(self._fd, command)
            return os.read(self._fd, MAX_RESPONSE + 1)
        except OSError as error:
            raise Unavailable(f"the TPM device failed: {error.strerror}") from error

    def close(self) -> None:
        """Close the device."""
        os.close(self._fd)

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def present() -> bool:
    """Whether this machine has a TPM."""
    return os.access(DEVICE, os.R_OK | os.W_OK)


def collect(request: Request, *, transport: Transport | None = None, event_log: bytes | None = None) -> Evidence:
    """Evidence for `request`, by default from this machine's TPM and kernel.

    `Unusable` when there is no TPM or it holds no certified AK; `Unavailable` when it fails.
    """
    log = _event_log() if event_log is None else event_log
    if transport is not None:
        return _evidence(Tpm(transport), request, log)
    with Device() as device:
        return _evidence(Tpm(device), request, log)


def _evidence(tpm: Tpm, request: Request, log: bytes) -> Evidence:
    chain = _chain(tpm)
    if request.report_data is not None and len(request.report_data) < 32:
        raise Unusable("report data shorter than 32 bytes cannot be bound by a TPM quote without padding")
    message, signature, pcrs = _quote(tpm, (request.report_data or b"")[:32])
    primary = {
        "tpm_quote": {"signature": b64(signature), "message": b64(message), "pcrs": [p.hex() for p in pcrs]},
        "ak_public": b64(subject_public_key_info(chain[0])),
        "ak_chain": [b64(c) for c in chain],
        "event_log": b64(log),
    }
    return Evidence(tee="tpm", primary=primary)


def _quote(tpm: Tpm, qualifying: bytes) -> tuple[bytes, bytes, list[bytes]]:
    """Quote and PCRs of one moment: when a PCR moves in between, both are taken again."""
    for _ in range(_ATTEMPTS):
        message, signature = tpm.quote(report.AK_HANDLE, qualifying)
        pcrs = tpm.read_pcrs()
        if report.parse_attest(message).pcr_digest == hashlib.sha256(b"".join(pcrs)).digest():
            return message, signature, pcrs
    raise Unavailable("the PCRs keep changing while they are quoted")


def _chain(tpm: Tpm) -> list[bytes]:
    """The certificates in the NV index, leaf first; they lie there one behind the other."""
    try:
        stored = tpm.nv_read(report.AK_CHAIN_INDEX)
    except TpmRefusal as refusal:
        raise Unusable(
            f"the TPM holds no AK certificate at NV index {report.AK_CHAIN_INDEX:#x}",
            hint="start the VM with a TPM state from the pool",
        ) from refusal
    return split_certificates(stored)


def split_certificates(data: bytes) -> list[bytes]:
    """Concatenated DER certificates, each as bytes; anything else is `Malformed`."""
    read = Cursor(data, "AK certificate chain")
    found: list[bytes] = []
    while read.remaining and len(found) < report.MAX_CHAIN:
        start = read.offset
        if read.be16() != 0x3082:
            raise Malformed("AK certificate chain: no DER certificate where one should begin")
        read.take(read.be16())
        found.append(data[start : read.offset])
    read.end()
    if not found:
        raise Malformed("AK certificate chain: empty")
    return found


def _event_log() -> bytes:
    """The kernel's copy of the firmware's log; its size is unknown before it is read."""
    data = b""
    try:
        descriptor = os.open(EVENT_LOG, os.O_RDONLY | os.O_CLOEXEC)
        try:
            while len(data) <= report.MAX_EVENT_LOG and (part := os.read(descriptor, 1 << 16)):
                data += part
        finally:
            os.close(descriptor)
    except OSError as error:
        raise Unusable(f"{EVENT_LOG}: {error.strerror}", hint="mount securityfs") from error
    if len(data) > report.MAX_EVENT_LOG:
        raise Unusable(f"{EVENT_LOG}: longer than {report.MAX_EVENT_LOG} bytes")
    return data
