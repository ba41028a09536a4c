"""The whole path as `make demo` walks it, in a trust domain of its own: every step, refusal and bound on memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.vm, pytest.mark.tools, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]

REFUSALS = {
    "another kernel command line": "measurement.pcr9",
    "another initrd": "measurement.pcr9",
    "a changed manifest": "release.active",
    "an image signed by another key": "image.signature",
    "a flipped byte in a layer": "image.layer",
    "a revoked release": "release.active",
    "another app's secret": "resource.owner",
    "evidence of the running workload, replayed under a new nonce": "tpm.quote.nonce",
    "`sample` evidence": "tee.sample",
}


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Run the demo once; what it printed and what it recorded."""
    home = tmp_path_factory.mktemp("home")
    environment = {**os.environ, "CASEMATE_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-m", "examples.demo"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    record = json.loads((home / "demo.json").read_text()) if (home / "demo.json").exists() else {}
    left = sorted(p.name for p in home.iterdir() if p.name.startswith("demo-")) if home.exists() else []
    return done, record, left


def test_exit_and_steps(told):
    done, record, left = told
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert record["ok"]
    assert [step["ok"] for step in record["steps"]] == [True] * 8
    assert left == []
    assert "DEVELOPMENT platform" in done.stdout
    assert record["platform"] == {"class": "development", "tpm": "swtpm", "protects_from_host": False}


@pytest.mark.parametrize(("attempt", "rule"), REFUSALS.items())
def test_each_refusal_names_its_rule(told, attempt, rule):
    found = {entry["attempt"]: entry for entry in told[1]["refusals"]}
    assert set(found) == set(REFUSALS)
    failed = [f for f in found[attempt]["findings"] if f["rule"].startswith(rule)]
    assert failed
    assert all(f["expected"] and f["found"] and f["hint"] for f in failed)


def test_memory_stays_bounded(told):
    figures = told[1]["figures"]
    assert figures["qemu_peak_mib"] <= figures["memory_mib"] + 150
    assert figures["agent_resident_mib"] <= 60


def test_no_secret_in_what_was_printed(told):
    done, record, _ = told
    text = done.stdout + done.stderr + json.dumps(record)  # the page's own line is shown on purpose, keys are not
    assert "PRIVATE KEY" not in text
    assert "not yours" not in text
