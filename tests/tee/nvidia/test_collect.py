"""The collector against a stand-in of NVML, which fills the driver's structures as the library would."""

import base64
import ctypes
from importlib import import_module

import pytest

from casemate.errors import Unavailable, Unusable
from casemate.schema.request import Request
from casemate.tee import nvidia
from casemate.testing import pki
from casemate.testing.nvidia import FakeGpu

collecting = import_module("casemate.tee.nvidia.collect")  # the package shows its function under this name
ASKED = Request(report_data=b"q" * 48)


class StandIn:
    """NVML with `gpus`; every function that a call must come before is noted."""

    def __init__(self, *gpus, arch=9, fails="", size=None):
        self.gpus, self.arch, self.fails, self.size, self.open = gpus, arch, fails, size, 0

    def __getattribute__(self, name):
        if name.startswith("nvml") and name == object.__getattribute__(self, "fails"):
            return lambda *_: 3  # NVML_ERROR_NOT_SUPPORTED
        return object.__getattribute__(self, name)

    def nvmlInit_v2(self):
        self.open += 1
        return 0

    def nvmlShutdown(self):
        self.open -= 1
        return 0

    def nvmlDeviceGetCount_v2(self, count):
        count._obj.value = len(self.gpus)
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index, handle):
        handle._obj.value = index.value + 1
        return 0

    def nvmlDeviceGetArchitecture(self, handle, arch):
        arch._obj.value = self.arch
        return 0

    def nvmlDeviceGetUUID(self, handle, buffer, size):
        buffer.value = f"GPU-{handle.value}".encode()
        return 0

    def nvmlDeviceGetConfComputeGpuAttestationReport(self, handle, report):
        data = self.gpus[handle.value - 1].report(bytes(report._obj.nonce))
        report._obj.attestationReportSize = self.size or len(data)
        report._obj.attestationReport[: len(data)] = list(data)
        return 0

    def nvmlDeviceGetConfComputeGpuCertificate(self, handle, chain):
        data = pki.pem(*(a.certificate for a in self.gpus[handle.value - 1].chain))
        chain._obj.attestationCertChainSize = len(data)
        chain._obj.attestationCertChain[: len(data)] = list(data)
        return 0


def test_collected_evidence_is_genuine():
    gpu = FakeGpu()
    nvml = StandIn(gpu)
    evidence = collecting.collect(ASKED, library=nvml)
    assert nvml.open == 0
    (entry,) = evidence.primary["device_evidence_list"]
    assert (entry["arch"], entry["uuid"]) == ("HOPPER", "GPU-1")
    assert base64.b64decode(entry["evidence"])[4:36] == b"q" * 32
    assert nvidia.verify(evidence, gpu.endorsements, ASKED, gpu.now).fresh


def test_every_gpu_is_collected():
    nvml = StandIn(FakeGpu("BLACKWELL"), FakeGpu("BLACKWELL"), arch=10)
    listed = collecting.collect(ASKED, library=nvml).primary["device_evidence_list"]
    assert [(e["arch"], e["uuid"]) for e in listed] == [("BLACKWELL", "GPU-1"), ("BLACKWELL", "GPU-2")]


def test_the_structures_are_nvmls():
    """Sizes and offsets of nvml.h, NVML 12."""
    assert ctypes.sizeof(collecting.AttestationReport) == 12 + 0x20 + 0x2000 + 0x1000
    assert collecting.AttestationReport.attestationReport.offset == 44
    assert ctypes.sizeof(collecting.GpuCertificate) == 8 + 0x1000 + 0x1400
    assert collecting.GpuCertificate.attestationCertChain.offset == 8 + 0x1000


def test_without_the_driver_it_is_unusable(monkeypatch):
    monkeypatch.setattr(collecting, "LIBRARY", "libnvidia-ml-that-is-not-here.so.1")
    with pytest.raises(Unusable, match="not here"):
        nvidia.collect(ASKED)


@pytest.mark.parametrize("size", [0, 31, 64])
def test_report_data_of_another_size_is_unusable(size):
    with pytest.raises(Unusable, match="report data"):
        collecting.collect(Request(report_data=bytes(size)), library=StandIn(FakeGpu()))


@pytest.mark.parametrize("nvml", [StandIn(), StandIn(FakeGpu(), arch=8)])
def test_no_gpu_or_an_older_one_is_unusable(nvml):
    with pytest.raises(Unusable):
        collecting.collect(ASKED, library=nvml)
    assert nvml.open == 0


def test_an_error_of_the_library_is_told_and_the_session_ends():
    nvml = StandIn(FakeGpu(), fails="nvmlDeviceGetConfComputeGpuAttestationReport")
    with pytest.raises(Unavailable, match="NVML error 3"):
        collecting.collect(ASKED, library=nvml)
    assert nvml.open == 0
    with pytest.raises(Unusable, match="has no nvmlInit_v2"):
        collecting.collect(ASKED, library=object())


def test_an_impossible_size_is_not_believed():
    with pytest.raises(Unavailable, match="99999 bytes"):
        collecting.collect(ASKED, library=StandIn(FakeGpu(), size=99999))
