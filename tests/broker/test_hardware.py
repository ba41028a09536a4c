"""Evidence of hardware TEEs through the broker's HTTP API, with fake vendors and collateral that was fetched before."""

from datetime import UTC, datetime

import pytest

from casemate.drivers import collateral, vendors
from casemate.errors import Unusable
from casemate.schema.endorsements import Anchor
from casemate.schema.evidence import Evidence
from casemate.schema.reference import ReferenceValues
from casemate.schema.request import Request
from casemate.tee import room
from casemate.testing import broker as brokers
from casemate.testing.broker import Guest, rules
from casemate.testing.dcap import FakePlatform
from casemate.testing.snp import FakeChip
from casemate.testing.tdx import FakeTd
from casemate.testing.vendors import VendorServer, amd, intel
from casemate.wire.encoding import b64

NOW = datetime.now(UTC)
ANY = Request(report_data=b"r" * 48, initdata_digest=b"i" * 32)


class OnHardware(Guest):
    """A guest on a machine that `collect` speaks for; SNP's certificates stay at home, as they do on bare metal."""

    def __init__(self, service, manifest, tee, collect):
        super().__init__(service, manifest, tee=tee)
        self.collect = collect
        self.made = super().evidence

    def evidence(self):
        probe = self.tpm.collect
        try:
            self.tpm.collect = lambda request: Evidence(tee=self.tee, primary=self.collect(request))
            return self.made()
        finally:
            self.tpm.collect = probe


def snp(chip):
    return lambda request: {**chip.collect(request).primary, "cert_chain": None}


def tdx(platform, **fields):
    return lambda request: FakeTd(platform, **fields).collect(request).primary


def sgx(platform):
    def collect(request):
        body = platform.enclave(report_data=request.report_data, config_id=request.initdata_digest)
        return {"quote": b64(platform.quote(body))}

    return collect


@pytest.fixture(scope="module")
def trusting(tmp_path_factory):
    """A broker without collateral that trusts a fake AMD and a fake Intel as vendors of production platforms."""
    made = brokers.start(tmp_path_factory.mktemp("hardware"))
    chip = FakeChip()
    made.admin.add_anchor(chip.endorsements.anchors[0])
    made.admin.add_reference(ReferenceValues(name="image", tee="snp", values={"measurement": "44" * 48}))
    registers = {"mrtd": "44" * 48}
    made.admin.add_reference(ReferenceValues(name="image", tee="tdx", values=registers))
    made.admin.add_reference(ReferenceValues(name="image", tee="sgx", values={"mr_enclave": "11" * 32}))
    yield made
    made.stop()


@pytest.fixture(scope="module")
def intel_root(trusting):
    """The root of every fake platform here, trusted by the broker."""
    platform = FakePlatform("tdx", now=NOW)
    trusting.admin.add_anchor(platform.endorsements.anchors[0])
    return platform.root


def fill(service, tee, collect, answers, folder):
    """What an operator does: fetch what evidence of that platform needs into the broker's store."""
    with VendorServer(answers) as server:
        store = collateral.Store.make(service.broker.settings.collateral_store)
        fetcher = vendors.Fetcher(store, vendors.load(server.settings(folder)), refresh=True)
        room(tee).endorse(Evidence(tee=tee, primary=collect(ANY)), fetcher.fetch)


def app_with_key(service):
    app = service.found(platforms=("production",))
    service.admin.put_resource(app.app_id, f"kbs:///{app.path}", b"the key")
    return app


def test_snp_gets_its_key_once_the_store_has_amds_collateral(trusting, tmp_path):
    chip = FakeChip(version=5)
    app, collect = app_with_key(trusting), snp(chip)
    guest = OnHardware(trusting, app.manifest, "snp", collect)
    got = guest.handshake()
    assert (got.status, rules(got)) == (401, ["collateral.absent"])
    assert got.json()["reasons"][0]["expected"].startswith("https://kdsintf.amd.com/vcek/v1/Milan/7777")
    fill(trusting, "snp", collect, amd(chip), tmp_path)
    assert guest.handshake().status == 200
    assert guest.open(guest.get(app.path)) == b"the key"


def test_tdx_gets_its_key_once_the_store_has_intels_collateral(trusting, intel_root, tmp_path):
    platform = FakePlatform("tdx", now=NOW, root=intel_root)
    app, collect = app_with_key(trusting), tdx(platform)
    guest = OnHardware(trusting, app.manifest, "tdx", collect)
    assert rules(guest.handshake()) == ["collateral.absent"]
    fill(trusting, "tdx", collect, intel(platform), tmp_path)
    assert guest.handshake().status == 200
    assert guest.open(guest.get(app.path)) == b"the key"


def test_sgx_too(trusting, intel_root, tmp_path):
    platform = FakePlatform("sgx", now=NOW, root=intel_root)
    app, collect = app_with_key(trusting), sgx(platform)
    fill(trusting, "sgx", collect, intel(platform), tmp_path)
    guest = OnHardware(trusting, app.manifest, "sgx", collect)
    got = guest.handshake()
    assert got.status == 200, got.body
    assert guest.open(guest.get(app.path)) == b"the key"


@pytest.mark.parametrize(
    ("levels", "rule"),
    [
        (((5, "OutOfDate", ("INTEL-SA-00001",)),), "platform.tcb"),
        (((5, "ConfigurationNeeded", ()),), "platform.tcb"),
        (((5, "Revoked", ()),), "tdx.tcb.revoked"),
        (((9, "UpToDate", ()),), "tdx.tcb.level"),
    ],
    ids=lambda x: x if isinstance(x, str) else x[0][1],
)
def test_tdx_with_a_bad_tcb_is_refused(trusting, intel_root, tmp_path, levels, rule):
    platform = FakePlatform("tdx", now=NOW, root=intel_root, levels=levels)
    app, collect = app_with_key(trusting), tdx(platform)
    fill(trusting, "tdx", collect, intel(platform), tmp_path)
    guest = OnHardware(trusting, app.manifest, "tdx", collect)
    assert rule in rules(guest.handshake())
    assert guest.get(app.path).status == 401


@pytest.mark.parametrize(
    ("chip", "rule"),
    [
        (FakeChip(broken="debug"), "evidence.debug"),
        (FakeChip(broken="migration"), "snp.policy.migration"),
        (FakeChip(broken="tcb"), "snp.vek.tcb"),
        (FakeChip(broken="signature"), "snp.signature"),
        (FakeChip(broken="vek-expired"), "snp.vek.valid"),
        (FakeChip(fields={"measurement": b"\x45" * 48}), "measurement.measurement"),
        (FakeChip(fields={"vmpl": 1}), "platform.privilege"),
    ],
    ids=["debug", "migration", "tcb", "signature", "expired", "measurement", "vmpl"],
)
def test_snp_that_is_wrong_is_refused(trusting, tmp_path, chip, rule):
    app, collect = app_with_key(trusting), snp(chip)
    fill(trusting, "snp", collect, amd(chip), tmp_path)
    found = rules(OnHardware(trusting, app.manifest, "snp", collect).handshake())
    assert any(name.startswith(rule) for name in found), found


def test_other_initdata_than_the_hardware_bound_is_refused(trusting, tmp_path):
    chip = FakeChip()
    app, collect = app_with_key(trusting), snp(chip)
    fill(trusting, "snp", collect, amd(chip), tmp_path)
    other = lambda request: collect(Request(report_data=request.report_data, initdata_digest=b"\1" * 32))  # noqa: E731
    assert rules(OnHardware(trusting, app.manifest, "snp", other).handshake()) == ["snp.initdata"]


def test_an_anchor_vouches_only_for_the_tees_that_it_names(tmp_path):
    made = brokers.start(tmp_path / "broker")
    try:
        chip = FakeChip()
        collect = snp(chip)
        fill(made, "snp", collect, amd(chip), tmp_path)
        made.admin.add_anchor(Anchor(certificate=chip.ark.certificate, platform_class="production", name="AMD?"))
        app = made.found(platforms=("production",))
        found = rules(OnHardware(made, app.manifest, "snp", collect).handshake())
        assert "snp.vek.chain" in found
        made.admin.add_anchor(chip.endorsements.anchors[0])
        assert rules(OnHardware(made, app.manifest, "snp", collect).handshake()) == ["measurement.reference"]
    finally:
        made.stop()


def test_a_bundle_serves_as_well_and_no_request_asks_anybody(tmp_path):
    chip = FakeChip()
    collect = snp(chip)
    bundle = tmp_path / "bundle.json"
    with VendorServer(amd(chip)) as server:
        store = collateral.Store.make(tmp_path / "elsewhere")
        fetcher = vendors.Fetcher(store, vendors.load(server.settings(tmp_path)))
        room("snp").endorse(Evidence(tee="snp", primary=collect(ANY)), fetcher.fetch)
        collateral.write_bundle(bundle, store.entries())
        before = len(server.asked)
        made = brokers.start(tmp_path / "broker", collateral=str(bundle))
        try:
            made.admin.add_anchor(chip.endorsements.anchors[0])
            made.admin.add_reference(ReferenceValues(name="image", tee="snp", values={"measurement": "44" * 48}))
            app = app_with_key(made)
            assert OnHardware(made, app.manifest, "snp", collect).handshake().status == 200
        finally:
            made.stop()
        assert len(server.asked) == before


def test_what_anchors_vouch_for_is_told_and_read_back(trusting):
    from casemate.verifier import trust

    info = trusting.call("GET", "/casemate/v0/info").json()
    assert {"snp"} in [set(anchor["tees"]) for anchor in info["anchors"]]
    document = {
        "broker": {"url": trusting.url, "pin": trusting.pin},
        "anchors": info["anchors"],
        "reference_values": [{"name": "image", "tee": "snp", "values": {"measurement": "44"}}],
    }
    read = trust.from_document(document)
    assert read.as_document()["anchors"] == info["anchors"]


@pytest.mark.parametrize("tees", [[], ["nothing"], "snp", [1]])
def test_anchors_name_known_tees(trusting, tees):
    anchor = {"certificate": b64(FakeChip().ark.certificate), "platform_class": "production", "tees": tees}
    with pytest.raises(Unusable, match="tees"):
        trusting.admin._json("POST", "/anchors", anchor)
