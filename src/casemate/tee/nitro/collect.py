"""Collect an attestation document inside an enclave from the Nitro Security Module, through its device /dev/nsm.

Standard: Linux include/uapi/linux/nsm.h (NSM_IOCTL_RAW); aws-nitro-enclaves-nsm-api for the messages (CBOR):

    {"Attestation": {"user_data": bytes | null, "nonce": bytes | null, "public_key": bytes | null}}
    {"Attestation": {"document": bytes}}  or  {"Error": text}

The nonce carries the report data. User data and public key are an enclave's own words, which no rule reads: left empty.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

from casemate.errors import Malformed, Unavailable, Unusable
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request
from casemate.wire import cbor
from casemate.wire.encoding import b64

DEVICE = Path("/dev/nsm")
MAX_REQUEST, MAX_RESPONSE = 0x1000, 0x3000
RAW = struct.Struct("=QQQQ")  # struct nsm_raw: address and length of the request, then of the buffer for the answer
IOCTL_RAW = 3 << 30 | RAW.size << 16 | 0x0A << 8  # _IOWR(0x0A, 0, struct nsm_raw)
MAX_NONCE = 512

Ioctl = Callable[[int, int, bytearray], int]


def present(*, device: Path = DEVICE) -> bool:
    """Whether this machine has a Nitro Security Module."""
    return device.exists()


def collect(request: Request, *, device: Path = DEVICE, ioctl: Ioctl | None = None) -> Evidence:
    """Evidence over `request`; `Unusable` outside an enclave. `ioctl` stands in for the kernel in tests."""
    nonce = request.report_data
    if nonce is not None and not 1 <= len(nonce) <= MAX_NONCE:
        raise Unusable(f"report data of {len(nonce)} bytes, a Nitro document holds 1 to {MAX_NONCE}")
    return Evidence(tee="nitro", primary={"document": b64(answered(exchange(asked(nonce), device, ioctl)))})


def asked(nonce: bytes | None) -> bytes:
    """The message that asks for a document."""
    fields = {"user_data": None, "nonce": nonce, "public_key": None}
    return cbor.dumps({"Attestation": fields})


def answered(data: bytes) -> bytes:
    """The document in the module's answer; `Unavailable` when the answer is an error."""
    item = cbor.loads(data, "NSM answer", limit=MAX_RESPONSE)
    error = item.get("Error") if isinstance(item, dict) else None
    if isinstance(error, str):
        raise Unavailable(f"the Nitro Security Module gave no document: {error[:64]}")
    inner = item.get("Attestation") if isinstance(item, dict) else None
    document = inner.get("document") if isinstance(inner, dict) else None
    if not isinstance(document, bytes) or not document:
        raise Malformed("NSM answer: a map with a document is wanted")
    return document


def exchange(message: bytes, device: Path = DEVICE, ioctl: Ioctl | None = None) -> bytes:
    """One message to the module and its answer: the kernel reads one buffer and fills the other."""
    import ctypes
    import fcntl

    if len(message) > MAX_REQUEST:
        raise Unusable(f"a message of {len(message)} bytes, the Nitro Security Module reads {MAX_REQUEST}")
    question, answer = ctypes.create_string_buffer(message, len(message)), ctypes.create_string_buffer(MAX_RESPONSE)
    raw = bytearray(RAW.pack(ctypes.addressof(question), len(message), ctypes.addressof(answer), MAX_RESPONSE))
    try:
        handle = os.open(device, os.O_RDWR | os.O_CLOEXEC)
        try:
            (ioctl or fcntl.ioctl)(handle, IOCTL_RAW, raw)
        finally:
            os.close(handle)
    except FileNotFoundError as error:
        raise Unusable("this is no Nitro enclave", hint=f"no {device} is there") from error
    except OSError as error:
        raise Unavailable(f"the Nitro Security Module did not answer: {error.strerror or error}") from error
    size = RAW.unpack(raw)[3]
    if size > MAX_RESPONSE:
        raise Malformed(f"NSM answer: {size} bytes, at most {MAX_RESPONSE} allowed")
    return answer.raw[:size]
