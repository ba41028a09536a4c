"""A running service on hardware is judged with a collateral store; without one nobody can judge it."""

from datetime import UTC, datetime

import pytest

from casemate.boot import initdata
from casemate.drivers import collateral, vendors
from casemate.errors import Unavailable, Unusable
from casemate.release.session import purpose_data
from casemate.schema import manifest as manifests
from casemate.schema.reference import ReferenceValues
from casemate.schema.request import Request
from casemate.testing.dcap import FakePlatform
from casemate.testing.manifests import APP, PIN, document
from casemate.testing.tdx import FakeTd
from casemate.testing.vendors import VendorServer, intel
from casemate.verifier import service
from casemate.verifier.trust import Trust


def test_a_td_behind_a_service_needs_collateral(tmp_path):
    platform = FakePlatform("tdx", now=datetime.now(UTC))
    text = initdata.document(manifests.from_builtins(document()))
    bound = purpose_data(service.PURPOSE, b"n" * 32 + bytes.fromhex(PIN.removeprefix("sha256:")))
    request = Request(report_data=bound, initdata_digest=initdata.digest(text))
    answer = service.Answer(FakeTd(platform).collect(request), text, PIN, b"n" * 32)
    reference = ReferenceValues(name="image", tee="tdx", values={"mrtd": "44" * 48})
    trust = Trust("https://127.0.0.1:9", PIN, platform.endorsements.anchors, (reference,))
    with pytest.raises(Unusable, match="cannot be judged without"):
        service.judge(answer, trust, APP)
    with pytest.raises(collateral.Absent):
        service.judge(answer, trust, APP, fetch=collateral.Store.make(tmp_path / "store").fetch)
    with VendorServer(intel(platform)) as server:
        fetcher = vendors.Fetcher(collateral.Store(tmp_path / "store"), vendors.load(server.settings(tmp_path)))
        for url in server.answers:
            fetcher.fetch(url)
    with pytest.raises(Unavailable, match="broker does not answer"):  # the evidence is genuine; the next step was asked
        service.judge(answer, trust, APP, fetch=collateral.Store(tmp_path / "store").fetch)
