"""TCB evaluation data numbers: one quote under three of Intel's evaluations, and what the claims say of them."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from casemate.errors import Malformed
from casemate.schema.endorsements import Endorsements
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request
from casemate.tee import sgx
from casemate.tee.dcap import collateral
from casemate.tee.dcap import quote as quotes
from casemate.testing import published
from casemate.testing.dcap import FakePlatform
from casemate.wire.encoding import b64

SAMPLE = published.folder("sgx", "v3-00606a-debug-evalnums")
needs_evidence = pytest.mark.skipif(SAMPLE is None, reason="the published evidence set is not on this machine")
NOW = datetime(2025, 6, 27, tzinfo=UTC)
# The advisories that each evaluation brought.
NEW = {17: set(), 18: {"INTEL-SA-01079", "INTEL-SA-01103"}, 19: {"INTEL-SA-01079", "INTEL-SA-01103", "INTEL-SA-01153"}}


def documents(number: int) -> dict[str, bytes]:
    return collateral.from_json((SAMPLE / f"collateral-eval{number}.json").read_bytes())


def claims(collateral_: dict[str, bytes]):
    evidence = Evidence(tee="sgx", primary={"quote": b64((SAMPLE / "quote.bin").read_bytes())})
    return sgx.verify(evidence, Endorsements(collateral=collateral_), Request(), NOW)


@needs_evidence
@pytest.mark.parametrize("number", [17, 18, 19])
def test_the_result_by_each_evaluation(number):
    found = claims(documents(number))
    assert found.values["tcb_eval_num"] == number
    assert (found.tcb_status, found.values["tcb_date"][:10]) == ("OutOfDate", "2021-11-10")
    late = {"INTEL-SA-01079", "INTEL-SA-01103", "INTEL-SA-01153"}
    assert set(found.values["advisory_ids"]) & late == NEW[number]
    assert [f.rule for f in found.cautions] == ["sgx.debug"]


@needs_evidence
@pytest.mark.parametrize(("info", "identity"), [(17, 19), (19, 17)])
def test_two_documents_of_different_evaluations_count_as_the_older(info, identity):
    newer = {name: data for name, data in documents(identity).items() if name.startswith("qe_identity")}
    assert claims(documents(info) | newer).values["tcb_eval_num"] == 17


@needs_evidence
def test_the_published_list_names_these_evaluations():
    raw = json.loads((SAMPLE / "tcb_evaluation_data_numbers.json").read_text())["raw_tcb_evaluation_data_numbers"]
    listed = {entry["tcbEvaluationDataNumber"] for entry in json.loads(raw)["tcbEvalNumbers"]}
    assert set(NEW) <= listed


def test_attestation_keys_on_p384_have_no_layout_to_read():
    platform = FakePlatform("tdx", version=5)
    quote = bytearray(platform.quote(platform.td()))
    quotes.parse(bytes(quote))
    quote[2] = quotes.KEY_P384
    with pytest.raises(Malformed, match="P-384"):
        quotes.parse(bytes(quote))
    quote[2] = 4
    with pytest.raises(Malformed, match="of type 4"):
        quotes.parse(bytes(quote))
