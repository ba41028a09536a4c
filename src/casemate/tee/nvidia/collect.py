"""Collect reports of the GPUs in this VM through the driver's management library (NVML, libnvidia-ml.so.1).

Standard: NVML API reference, "Confidential Compute": nvmlDeviceGetConfComputeGpuAttestationReport and
nvmlDeviceGetConfComputeGpuCertificate. NVSwitches have a library of their own (NSCQ) and are not collected here.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from casemate.errors import Unavailable, Unusable
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request
from casemate.wire.encoding import b64

LIBRARY = "libnvidia-ml.so.1"
ARCHITECTURES = {9: "HOPPER", 10: "BLACKWELL"}  # NVML_DEVICE_ARCH_*
MAX_DEVICES = 32


class AttestationReport(ctypes.Structure):
    """nvmlConfComputeGpuAttestationReport_t: the nonce goes in, the report comes out."""

    _fields_ = (
        ("isCecAttestationReportPresent", ctypes.c_uint),
        ("attestationReportSize", ctypes.c_uint),
        ("cecAttestationReportSize", ctypes.c_uint),
        ("nonce", ctypes.c_ubyte * 0x20),
        ("attestationReport", ctypes.c_ubyte * 0x2000),
        ("cecAttestationReport", ctypes.c_ubyte * 0x1000),
    )


class GpuCertificate(ctypes.Structure):
    """nvmlConfComputeGpuCertificate_t: PEM chains; that of attestation is the one that signs reports."""

    _fields_ = (
        ("certChainSize", ctypes.c_uint),
        ("attestationCertChainSize", ctypes.c_uint),
        ("certChain", ctypes.c_ubyte * 0x1000),
        ("attestationCertChain", ctypes.c_ubyte * 0x1400),
    )


def load() -> Any:
    """The library of this machine; `Unusable` where the driver is not installed."""
    try:
        return ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise Unusable(f"{LIBRARY} is not here", hint="install NVIDIA's driver in the guest") from error


def collect(request: Request, *, library: Any = None) -> Evidence:
    """Evidence of every GPU over the first 32 bytes of `request.report_data`, in CoCo's form.

    `library` is NVML as ctypes gives it, or a stand-in with the same functions.
    """
    data = request.report_data or b""
    if len(data) not in (32, 48):
        raise Unusable(f"report data of {len(data)} bytes, 32 or 48 are wanted", hint="use SHA-256 or SHA-384")
    nvml = library if library is not None else load()
    with _session(nvml):
        count = ctypes.c_uint()
        _ask(nvml, "nvmlDeviceGetCount_v2", ctypes.byref(count))
        if not 1 <= count.value <= MAX_DEVICES:
            raise Unusable(f"{count.value} GPUs, 1 to {MAX_DEVICES} are wanted")
        devices = [_device(nvml, index, data[:32]) for index in range(count.value)]
    return Evidence(tee="nvidia", primary={"device_evidence_list": devices})


@contextmanager
def _session(nvml: Any) -> Iterator[None]:
    _ask(nvml, "nvmlInit_v2")
    try:
        yield
    finally:
        nvml.nvmlShutdown()


def _device(nvml: Any, index: int, nonce: bytes) -> dict[str, str]:
    handle, arch = ctypes.c_void_p(), ctypes.c_uint()
    _ask(nvml, "nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(handle))
    _ask(nvml, "nvmlDeviceGetArchitecture", handle, ctypes.byref(arch))
    if arch.value not in ARCHITECTURES:
        raise Unusable(f"GPU {index} is of an architecture ({arch.value}) without attestation")
    uuid = ctypes.create_string_buffer(96)
    _ask(nvml, "nvmlDeviceGetUUID", handle, uuid, ctypes.c_uint(len(uuid)))
    report, chain = AttestationReport(), GpuCertificate()
    report.nonce[:] = list(nonce)
    _ask(nvml, "nvmlDeviceGetConfComputeGpuAttestationReport", handle, ctypes.byref(report))
    _ask(nvml, "nvmlDeviceGetConfComputeGpuCertificate", handle, ctypes.byref(chain))
    return {
        "arch": ARCHITECTURES[arch.value],
        "uuid": uuid.value.decode("ascii", "replace"),
        "evidence": b64(_taken(report.attestationReport, report.attestationReportSize)),
        "certificate": b64(_taken(chain.attestationCertChain, chain.attestationCertChainSize)),
    }


def _taken(buffer: Any, size: int) -> bytes:
    if not 1 <= size <= len(buffer):
        raise Unavailable(f"the GPU's driver gave {size} bytes where 1 to {len(buffer)} are possible")
    return bytes(buffer[:size])


def _ask(nvml: Any, name: str, *arguments: Any) -> None:
    try:
        code = getattr(nvml, name)(*arguments)
    except AttributeError as error:
        raise Unusable(
            f"the driver's library has no {name}", hint="use a driver with confidential computing"
        ) from error
    if code:
        raise Unavailable(f"{name} failed with NVML error {code}", hint="is the GPU in confidential-computing mode?")
