"""A folder with a CPU's evidence, its GPUs' beside it, and the papers of both."""

import json

import pytest

from casemate.schema.request import Request
from casemate.tee.files import File
from casemate.testing import pki
from casemate.testing.nvidia import FakeGpu
from casemate.testing.snp import FakeChip
from casemate.verifier.files import Question, verify


def folder(chip, gpu, *, rims=True):
    entries = gpu.entries(Request(report_data=b"q" * 48))
    additional = json.dumps({"nvidia": {"device_evidence_list": entries}})
    evidence = {"tee": "snp", "primary": chip.collect(Request()).primary, "additional": additional}
    found = [File("evidence", json.dumps(evidence).encode())]
    found += [File(f"cert{i}", pki.pem(der)) for i, der in enumerate(chip.endorsements.certificates)]
    papers = gpu.endorsements.collateral if rims else {}
    return [*found, *(File(f"paper{i}", data) for i, data in enumerate(papers.values()))]


def judged(chip, gpu, **options):
    anchors = (*chip.endorsements.anchors, *gpu.endorsements.anchors)
    return verify(folder(chip, gpu, **options), Question(now=chip.now, anchors=anchors))


def test_both_are_judged_with_their_papers():
    found = judged(FakeChip(), FakeGpu())
    assert (found.verdict, found.failed) == ("accepted", ())
    assert {"snp.signature", "nvidia.signature", "nvidia.measurements"} <= {f.rule for f in found.checks}
    assert len([name for name in found.used if name.startswith("paper")]) == 5


@pytest.mark.parametrize(
    ("broken", "rule"), [("signature", "nvidia.signature"), ("measurement", "nvidia.measurements")]
)
def test_a_device_that_is_not_genuine_refuses_all(broken, rule):
    found = judged(FakeChip(), FakeGpu(broken=broken))
    assert (found.verdict, {f.rule for f in found.failed}) == ("refused", {rule})


def test_a_device_without_manifests_is_not_accepted():
    found = judged(FakeChip(), FakeGpu(), rims=False)
    assert (found.verdict, [f.rule for f in found.failed]) == ("refused", ["nvidia.rim"])


def test_devices_that_nobody_knows_are_not_passed_over():
    chip = FakeChip()
    files = folder(chip, FakeGpu())
    evidence = json.loads(files[0].data)
    for additional in ('{"hygondcu": {}}', "[]"):
        files[0] = File("evidence", json.dumps(evidence | {"additional": additional}).encode())
        assert verify(files, Question(now=chip.now, anchors=chip.endorsements.anchors)).verdict == "unusable"
