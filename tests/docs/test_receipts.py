"""The page on receipts: its commands run as they stand, against a broker that released one secret."""

import json

import pytest
from tests.docs import shell

from casemate.drivers import brokerclient
from casemate.ledger import history
from casemate.testing import broker as brokers
from casemate.testing.broker import Guest
from casemate.verifier.trust import Trust

PAGE = shell.ROOT / "docs/how-to/receipts.md"


@pytest.fixture
def service(tmp_path):
    made = brokers.start(tmp_path / "broker")
    made.trust()
    yield made
    made.stop()


def test_the_page_runs_as_it_stands(service, tmp_path):
    app = service.found()
    service.admin.put_resource(app.app_id, f"kbs:///{app.path}", b"value")
    guest = Guest(service, app.manifest)
    guest.handshake()
    receipt = guest.get(app.path).headers["casemate-receipt"]
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    known = history.parse(brokerclient.info(service.url, service.pin)["log"])
    trust = Trust(service.url, service.pin, (service.vendor.anchor,), tuple(service.admin.references()), known)
    (home / "trust.json").write_text(json.dumps(trust.as_document()))
    context = {"broker": {"url": service.url, "pin": service.pin}, "admin_key": str(service.admin_key)}
    (home / "context.json").write_text(json.dumps(context))
    work = tmp_path / "work"
    work.mkdir()
    told = shell.good(shell.run(shell.script(PAGE), work, CASEMATE_HOME=str(home), RECEIPT=receipt))
    for part in (
        "ACCEPTED",
        "not opened:  resource",
        "log.consistency",
        "log.entries",
        "is one of",
        "no number is missing",
    ):
        assert part in told
    assert receipt in (work / "record.md").read_text()
    assert json.loads((work / "record.json").read_text())["entries"] == 1
