import base64
import json
from importlib import import_module
from urllib.parse import unquote

import pytest
from cryptography.x509 import ocsp

from casemate.errors import Malformed, Unavailable
from casemate.schema.request import Request
from casemate.tee import files, nvidia
from casemate.tee.nvidia import files as gathering
from casemate.tee.nvidia import report as wire
from casemate.testing.nvidia import FakeGpu

endorsing = import_module("casemate.tee.nvidia.endorse")  # the package shows its function under this name
ASKED = Request(report_data=b"q" * 48)
TEE = "nvidia"


def service(gpu, asked):
    """A RIM service and an OCSP responder for `gpu`; lists are not to be had."""
    given = gpu.endorsements.collateral
    responses = {ocsp.load_der_ocsp_response(r).serial_number: r for n, r in given.items() if n.startswith("ocsp/")}

    def fetch(url):
        asked.append(url)
        place, _, last = url.rpartition("/")
        if place == endorsing.RIM_SERVICE:
            manifest = given["rim/driver.xml" if "DRIVER" in last else "rim/firmware.xml"]
            return json.dumps({"id": last, "rim": base64.b64encode(manifest).decode(), "sha256": ""}).encode()
        if place == endorsing.OCSP_SERVICE:
            serial = ocsp.load_der_ocsp_request(base64.b64decode(unquote(last))).serial_number
            if serial in responses:
                return responses[serial]
        raise Unavailable("not here")

    return fetch


def test_what_is_fetched_is_what_verification_takes():
    gpu, asked = FakeGpu(), []
    evidence = gpu.collect(ASKED)
    found = nvidia.endorse(evidence, service(gpu, asked))
    assert sorted(n for n in found.collateral if n.startswith("rim/")) == [
        "rim/NV_GPU_DRIVER_GH100_550.90.07.xml",
        "rim/NV_GPU_VBIOS_1010_0200_882_96009F0001.xml",
    ]
    given = type(found)(anchors=gpu.endorsements.anchors, collateral=found.collateral)
    claims = nvidia.verify(evidence, given, ASKED, gpu.now)
    assert claims.cautions == ()
    assert claims.values["revocation"].startswith("OCSP: 3 of 7")
    hosts = {url.split("/")[2] for url in asked}
    assert hosts == {"rim.attestation.nvidia.com", "ocsp.ndis.nvidia.com"}


def test_ids_of_published_devices(genuine):
    if genuine.verdict == "refused":
        return
    read = [files.File(p.name, p.read_bytes()) for p in sorted(genuine.folder.iterdir()) if p.is_file()]
    (device,) = wire.parse_evidence(gathering.gather(files.sort(read)).evidence.primary)
    assert (
        endorsing.rim_ids(wire.parse(device.report), device.arch)
        == {
            "nvidia/hopper-550.90.07-full": (
                "NV_GPU_DRIVER_GH100_550.90.07",
                "NV_GPU_VBIOS_1010_0200_882_96009F0001",
            ),
            "nvidia/hopper-590.12-json": ("NV_GPU_DRIVER_GH100_590.12", "NV_GPU_VBIOS_G520_0200_885_9600A50001"),
            "nvidia/blackwell-575.32": ("NV_GPU_CC_DRIVER_GB100_575.32", "NV_GPU_VBIOS_G525_0220_886_970088000F"),
            "nvidia/switch-ls10-rim": ("NV_SWITCH_BIOS_5612_0002_890_9610550001",),
        }[genuine.id]
    )


def test_published_chains_name_their_lists(genuine_by_id):
    genuine = genuine_by_id("nvidia/blackwell-575.32")
    asked = []

    def fetch(url):
        asked.append(url)
        if "/rim/" in url:
            raise Unavailable("no")
        return b"x"

    read = [files.File(p.name, p.read_bytes()) for p in sorted(genuine.folder.iterdir())]
    evidence = gathering.gather(files.sort(read)).evidence
    with pytest.raises(Unavailable):  # not one manifest
        nvidia.endorse(evidence, fetch)
    (device,) = wire.parse_evidence(evidence.primary)
    urls = [url for _, url in endorsing._statements([device.certificates], "ocsp/", "crl/")]
    assert "http://crl.ndis.nvidia.com/crl/l1-root.crl" in urls
    assert "http://crl.ndis.nvidia.com/crl/l2-gb100.crl" in urls
    assert sum(url.startswith(endorsing.OCSP_SERVICE + "/") for url in urls) == 3


def test_one_manifest_that_is_not_published_does_not_hide_the_other():
    gpu, asked = FakeGpu(), []
    fetch = service(gpu, asked)

    def partly(url):
        if "VBIOS" in url:
            raise Unavailable("HTTP 404")
        return fetch(url)

    evidence = gpu.collect(ASKED)
    found = nvidia.endorse(evidence, partly)
    claims = nvidia.verify(
        evidence, type(found)(anchors=gpu.endorsements.anchors, collateral=found.collateral), ASKED, gpu.now
    )
    assert [c.found for c in claims.cautions] == ["none for firmware 96.00.9F.00.01"]


@pytest.mark.parametrize("answer", [b"", b"{}", b'{"id": "other", "rim": ""}', b"<html>"])
def test_a_service_that_answers_something_else_is_malformed(answer):
    with pytest.raises(Malformed):
        nvidia.endorse(FakeGpu().collect(ASKED), lambda url: answer)


def test_a_report_cannot_choose_what_is_asked_for():
    """Fields that are no plain words make no id; the parser refuses what is worse."""
    gpu = FakeGpu(fields={17: b"a b\0", 3: b"1 2\0"})
    assert endorsing.rim_ids(wire.parse(gpu.report(b"")), "HOPPER") == ()
