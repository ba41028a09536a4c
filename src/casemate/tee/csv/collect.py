"""Collect a CSV report in the guest through the driver's device /dev/csv-guest.

Standard: Documentation/virt/coco/csv-guest.rst and drivers/virt/coco/csv-guest of the kernels that carry Hygon's driver
(openEuler, OpenAnolis; it is not in Linus's tree).

    struct csv_report_req { u8 *report_data; int len; }        _IOWR('D', 1, struct csv_report_req)
    buffer in    report data 64, mnonce 16, SM3 of both 32     buffer out   the report

The report is passed on as the firmware gave it, so that its HMAC can be checked; HSK and CEK are for the verifier.
"""

from __future__ import annotations

import hmac
import os
import struct
from collections.abc import Callable
from pathlib import Path

from casemate.crypto import sm3
from casemate.errors import Unavailable, Unusable
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request
from casemate.tee.csv import report as wire
from casemate.tee.csv.wire import certificate_json

DEVICE = Path("/dev/csv-guest")
REQUEST = struct.Struct("=Qi4x")
IOCTL_REPORT = 3 << 30 | REQUEST.size << 16 | ord("D") << 8 | 1
MNONCE = 16

Ioctl = Callable[[int, int, bytearray], int]


def present(*, device: Path = DEVICE) -> bool:
    """Whether this machine's kernel offers CSV reports."""
    return device.exists()


def collect(request: Request, *, device: Path = DEVICE, ioctl: Ioctl | None = None) -> Evidence:
    """Evidence over `request`, in CoCo's form; `Unusable` outside a CSV guest. `ioctl` stands in for the kernel."""
    data = request.report_data or b""
    if len(data) > 64:
        raise Unusable(f"report data of {len(data)} bytes, a CSV report holds 64")
    mnonce = os.urandom(MNONCE)
    page = exchange(asked(data, mnonce), device, ioctl)
    report = wire.parse(page)
    if report.pek is None or not hmac.compare_digest(report.mnonce, mnonce):
        raise Unavailable("the firmware's report answers another question; try again")
    return Evidence(
        tee="csv",
        primary={
            "attestation_report": {"magic": [0] * 16, "flags": 0, "data": list(page)},
            "cert_chain": {"pek": certificate_json(report.pek.raw)},
            "serial_number": list(report.serial_number),
            "cc_eventlog": None,
        },
    )


def asked(data: bytes, mnonce: bytes) -> bytes:
    """What the driver's buffer begins with: report data, mnonce and the SM3 of both."""
    body = data.ljust(64, b"\0") + mnonce
    return body + sm3.digest(body)


def exchange(question: bytes, device: Path = DEVICE, ioctl: Ioctl | None = None) -> bytes:
    """One report (a page) for what the buffer begins with; the kernel reads and fills the same buffer."""
    import ctypes
    import fcntl

    page = ctypes.create_string_buffer(question, wire.PAGE)
    message = bytearray(REQUEST.pack(ctypes.addressof(page), wire.PAGE))
    try:
        handle = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
        try:
            (ioctl or fcntl.ioctl)(handle, IOCTL_REPORT, message)
        finally:
            os.close(handle)
    except FileNotFoundError as error:
        raise Unusable("this is no CSV guest", hint=f"no {device} is there") from error
    except OSError as error:
        raise Unavailable(f"the CSV firmware gave no report: {error.strerror or error}") from error
    return page.raw
