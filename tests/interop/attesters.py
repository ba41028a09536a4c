"""Evidence for the client, by the project's fake vendors: the only place here that knows both sides."""

import base64
from datetime import UTC, datetime

from casemate.drivers import collateral, vendors
from casemate.schema.evidence import Evidence
from casemate.schema.reference import ReferenceValues
from casemate.schema.request import Request
from casemate.tee import room
from casemate.testing.dcap import FakePlatform
from casemate.testing.snp import FakeChip
from casemate.testing.tdx import FakeTd
from casemate.testing.tpm import FakeTpm
from casemate.testing.vendors import VendorServer, amd, intel

ANY = Request(report_data=b"r" * 48, initdata_digest=b"i" * 32)


class Sample:
    """`sample`: the digest as it is, 48 bytes, no padding."""

    tee, production = "sample", False

    def trust(self, service, folder):
        service.admin.add_reference(ReferenceValues(name="sample", tee="sample", values={"launch_digest": "abcde"}))

    def __call__(self, digest, nonce, initdata=None):
        return {"svn": "1", "report_data": base64.b64encode(digest).decode()}


class Hardware:
    """SNP or TDX of a fake vendor whose root the broker's operator trusts, with collateral fetched before."""

    production = True

    def __init__(self, tee):
        self.tee = tee
        now = datetime.now(UTC)
        self.machine = FakeChip(version=5) if tee == "snp" else FakePlatform("tdx", now=now)
        self.register = {"snp": "measurement", "tdx": "mrtd"}[tee]

    def trust(self, service, folder):
        service.admin.add_anchor(self.machine.endorsements.anchors[0])
        service.admin.add_reference(ReferenceValues(name="image", tee=self.tee, values={self.register: "44" * 48}))
        answers = amd(self.machine) if self.tee == "snp" else intel(self.machine)
        with VendorServer(answers) as server:
            store = collateral.Store.make(service.broker.settings.collateral_store)
            fetcher = vendors.Fetcher(store, vendors.load(server.settings(folder)), refresh=True)
            room(self.tee).endorse(Evidence(tee=self.tee, primary=self.primary(ANY)), fetcher.fetch)

    def primary(self, request):
        if self.tee == "snp":
            return {**self.machine.collect(request).primary, "cert_chain": None}
        return FakeTd(self.machine).collect(request).primary

    def __call__(self, digest, nonce, initdata=None):
        return self.primary(Request(report_data=digest, initdata_digest=initdata))


class Tpm:
    """A fake TPM of the broker's test vendor; PCR 8 has the document's SHA-256."""

    tee, production = "tpm", False

    def __init__(self, vendor):
        self.vendor = vendor

    def trust(self, service, folder):
        service.trust()

    def __call__(self, digest, nonce, initdata=None):
        request = Request(report_data=digest, initdata_digest=initdata)
        return FakeTpm(vendor=self.vendor, initdata=self.document).collect(request).primary

    document = None
