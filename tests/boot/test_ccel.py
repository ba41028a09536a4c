import contextlib
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.boot import ccel, eventlog
from casemate.errors import Malformed

ROOT = Path(os.environ.get("CASEMATE_EVIDENCE", Path(__file__).resolve().parents[3] / "shared" / "evidence"))
SAMPLE = ROOT / "eventlog" / "ccel-alibaba-aael"


@pytest.mark.skipif(not SAMPLE.is_dir(), reason=f"no genuine evidence at {ROOT}: set CASEMATE_EVIDENCE")
def test_a_published_log_reads_as_its_origin_expects():
    log = eventlog.parse((SAMPLE / "ccel.bin").read_bytes(), padded=True)
    expected = json.loads((SAMPLE / "expected.json").read_text())["uefi_event_logs"]
    found = ccel.claims(log)
    assert [{k: v for k, v in entry.items() if k != "event_type"} for entry in found] == expected
    assert all(entry["event_type"] == entry["type_name"] for entry in found)


@given(st.sampled_from(sorted(ccel.NAMES)), st.binary(max_size=120))
def test_details_never_fail(kind, data):
    event = eventlog.Event(1, kind, {"sha384": bytes(48)}, data)
    assert len(ccel.claims(eventlog.EventLog((event,), ("sha384",)))) == (kind != eventlog.EV_NO_ACTION)


@given(st.binary(max_size=300))
def test_logs_only_malformed(data):
    with contextlib.suppress(Malformed):
        ccel.claims(eventlog.parse(data, padded=True))
