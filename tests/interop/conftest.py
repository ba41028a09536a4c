"""A broker for protocol tests: sample evidence is let in by name, and unsigned reference values too."""

import pytest
from tests.interop import attesters, rcar_client

from casemate.broker import tenants
from casemate.schema.reference import ReferenceValues
from casemate.testing import broker as brokers

SAMPLE = {"refused_tees": [], "accepted_cautions": ["sample.proof"]}


def start(folder, **options):
    """A broker with the settings of `SAMPLE` and others, that knows what sample evidence shows."""
    made = brokers.start(folder, **{**SAMPLE, **options})
    made.admin.add_reference(ReferenceValues(name="sample", tee="sample", values={"launch_digest": "abcde"}))
    allow_unsigned(made, None)
    return made


def allow_unsigned(service, tenant):
    """What an owner does with `casemate tenant set`; None is the broker itself."""
    if tenant is not None:
        tenants.add(service.broker, tenant, who="test")
    tenants.change(service.broker, tenant, tenants.Changes(unsigned_references=True), who="test")


def client(service, tee="sample", attester=None, **options):
    """A client from outside for that broker."""
    settings = service.broker.settings
    authority = str(settings.folder / "tls.crt")
    return rcar_client.Client(settings.port, authority, tee, attester or attesters.Sample(), **options)


def with_key(service, **options):
    """An app with a key, and a sample client whose initdata is its manifest."""
    from casemate.boot import initdata

    app = service.found()
    service.admin.put_resource(app.app_id, f"kbs:///{app.path}", b"the key")
    return app, client(service, initdata=initdata.document(app.manifest).decode(), **options)


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    made = start(tmp_path_factory.mktemp("interop"))
    yield made
    made.stop()


@pytest.fixture(scope="module")
def strict(tmp_path_factory):
    made = start(tmp_path_factory.mktemp("strict"), strict_trustee=True)
    yield made
    made.stop()
