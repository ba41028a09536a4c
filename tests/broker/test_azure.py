"""Azure's machines through the broker's HTTP API, with a fake AMD and Intel and collateral that was fetched before."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from casemate.drivers import collateral, vendors
from casemate.schema.evidence import Evidence
from casemate.schema.reference import ReferenceValues
from casemate.schema.request import Request
from casemate.tee import room
from casemate.testing import broker as brokers
from casemate.testing.azure import FakeCvm, trust_domain
from casemate.testing.broker import Guest, rules
from casemate.testing.dcap import FakePlatform
from casemate.testing.snp import FakeChip
from casemate.testing.vendors import VendorServer, amd, intel

ANY = Request(report_data=b"r" * 48, initdata_digest=b"i" * 32)
PCR7 = "17" * 32


class OnAzure(Guest):
    """A guest on one of Azure's machines."""

    def __init__(self, service, manifest, machine, tee=""):
        super().__init__(service, manifest, tee=tee or machine.tee)
        self.machine = machine

    def evidence(self):
        probe = self.tpm.collect
        try:
            self.tpm.collect = lambda request: Evidence(
                tee=self.machine.tee, primary=self.machine.collect(request).primary
            )
            return super().evidence()
        finally:
            self.tpm.collect = probe


@pytest.fixture(scope="module")
def trusting(tmp_path_factory):
    """A broker that trusts both fake vendors and knows one paravisor on each."""
    made = brokers.start(tmp_path_factory.mktemp("azure"))
    platform = FakePlatform("tdx", now=datetime.now(UTC))
    made.machines = {"snp": FakeCvm(FakeChip(version=3)), "tdx": FakeCvm(trust_domain(platform))}
    papers = {"snp": amd(made.machines["snp"].hardware), "tdx": intel(platform)}
    for kind, machine in made.machines.items():
        made.admin.add_anchor(machine.endorsements.anchors[0])
        base = {"measurement": "44" * 48} if kind == "snp" else {"mrtd": "44" * 48}
        made.admin.add_reference(ReferenceValues(name="image", tee=machine.tee, values=base | {"pcr7": PCR7}))
        folder = tmp_path_factory.mktemp(kind)
        with VendorServer(papers[kind]) as server:
            store = collateral.Store.make(made.broker.settings.collateral_store)
            fetcher = vendors.Fetcher(store, vendors.load(server.settings(folder)), refresh=True)
            room(machine.tee).endorse(machine.collect(ANY), fetcher.fetch)
    yield made
    made.stop()


def app_with_key(service):
    app = service.found(platforms=("production",))
    service.admin.put_resource(app.app_id, f"kbs:///{app.path}", b"the key")
    return app


@pytest.mark.parametrize("kind", ["snp", "tdx"])
@pytest.mark.parametrize("version", [0, 1, 2])
def test_a_machine_gets_its_key(trusting, kind, version):
    machine = FakeCvm(trusting.machines[kind].hardware, version=version)
    app = app_with_key(trusting)
    guest = OnAzure(trusting, app.manifest, machine)
    got = guest.handshake()
    assert got.status == 200, got.body
    assert guest.open(guest.get(app.path)) == b"the key"


def test_older_clients_name_it_otherwise(trusting):
    app = app_with_key(trusting)
    assert OnAzure(trusting, app.manifest, trusting.machines["snp"], tee="azsnpvtpm").handshake().status == 200


@pytest.mark.parametrize(
    ("changes", "rule"),
    [({"broken": "nonce"}, "az-snp-vtpm.quote.nonce"), ({"broken": "initdata"}, "az-snp-vtpm.initdata"),
     ({"pcrs": {7: b"\7" * 32}}, "measurement.pcr7")],
)  # fmt: skip
def test_what_is_wrong_is_told(trusting, changes, rule):
    machine = FakeCvm(trusting.machines["snp"].hardware, **changes)
    got = OnAzure(trusting, app_with_key(trusting).manifest, machine).handshake()
    assert got.status in (401, 403)
    assert rule in rules(got)


def test_another_paravisor_is_refused_whatever_its_pcrs_say(trusting):
    mine = trusting.machines["snp"].hardware
    chip = FakeChip(version=3, key=mine.key, fields={"measurement": b"\x45" * 48})
    got = OnAzure(trusting, app_with_key(trusting).manifest, FakeCvm(chip)).handshake()
    assert "measurement.measurement" in rules(got)
