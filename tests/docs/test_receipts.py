"""The page on receipts: its commands run as they stand, against a broker that released one secret."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from casemate.drivers import brokerclient
from casemate.ledger import history
from casemate.testing import broker as brokers
from casemate.testing.broker import Guest
from casemate.verifier.trust import Trust

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/how-to/receipts.md"
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)


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
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "src"),
        "CASEMATE_HOME": str(home),
        "RECEIPT": receipt,
    }
    work = tmp_path / "work"
    work.mkdir()
    script = "".join(BLOCK.findall(PAGE.read_text()))
    command = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    for part in (
        "ACCEPTED",
        "not opened:  resource",
        "log.consistency",
        "log.entries",
        "is one of",
        "no number is missing",
    ):
        assert part in done.stdout
    assert receipt in (work / "record.md").read_text()
    assert json.loads((work / "record.json").read_text())["entries"] == 1
