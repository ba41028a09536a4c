"""Our guest's client against a stub of a key broker that was written from the protocol's description.

It has not been run against a real Trustee: that has no `Casemate-Nonce-Salt`, and without it our guest refuses.
"""

import base64

import pytest
from tests.interop.stub_kbs import StubKbs

from casemate.errors import CasemateError, Malformed, Refused
from casemate.guest.attest import Attester, Session
from casemate.schema.evidence import Evidence
from casemate.schema.manifest import Broker

URI = "kbs:///default/key/1"
DOCUMENT = b'version = "0.1.0"\nalgorithm = "sha256"\n\n[data]\n"x" = "y"\n'


@pytest.fixture
def stub(tmp_path):
    made = StubKbs(tmp_path)
    yield made
    made.stop()


def collect(request):
    data = base64.b64encode(request.report_data).decode()
    return Evidence(tee="sample", primary={"svn": "1", "report_data": data})


def session(stub, tee="sample", made=collect):
    broker = Broker(url=stub.url, key=stub.pin)
    return Session(broker, DOCUMENT, Attester(tee, made), attempts=1, backoff=0.01)


def test_a_resource_is_opened(stub):
    found = session(stub).resource(URI)
    assert found.value == b"of the stub"
    assert [path for _, path, _ in stub.seen] == [
        "/kbs/v0/auth",
        "/kbs/v0/attest",
        "/kbs/v0/resource/default/key/1",
    ]


def test_the_messages_are_the_protocols(stub):
    session(stub).resource(URI)
    (_, _, asked), (_, _, said), _ = stub.seen
    assert asked == {"version": "0.4.0", "tee": "sample", "extra-params": {}}
    assert set(said) == {"init-data", "runtime-data", "tee-evidence"}
    assert said["init-data"] == {"format": "toml", "body": DOCUMENT.decode()}
    assert set(said["runtime-data"]["tee-pubkey"]) == {"kty", "crv", "alg", "x", "y"}
    assert said["tee-evidence"]["additional_evidence"] == ""


def test_an_expired_token_means_a_new_handshake(stub):
    one = session(stub)
    one.resource(URI)
    stub.faults.add("expired")
    assert one.resource(URI).value == b"of the stub"
    assert [path for _, path, _ in stub.seen].count("/kbs/v0/attest") == 2


def test_what_trustee_says_of_a_missing_resource_ends_it(stub):
    with pytest.raises(Refused) as refusal:
        session(stub).resource("kbs:///default/key/none")
    assert "Plugin internal error" in str(refusal.value.findings[0])
    assert [path for _, path, _ in stub.seen].count("/kbs/v0/attest") == 2  # once more, and no further


def test_evidence_of_another_request_is_refused_there(stub):
    def stale(request):
        return Evidence(tee="sample", primary={"svn": "1", "report_data": base64.b64encode(bytes(48)).decode()})

    with pytest.raises(Refused):
        session(stub, made=stale).resource(URI)


def test_a_header_that_is_spelt_otherwise_opens_too(stub):
    """The peers write the header again for the AAD and fail here; ours takes the bytes as they came."""
    stub.faults.add("spaces")
    assert session(stub).resource(URI).value == b"of the stub"


def test_a_nonce_that_is_not_bound_to_the_pinned_key_is_refused_before_evidence_is_made(tmp_path):
    """A key broker as section 1 describes it, without our header: a relay could not be told from it."""
    made, asked = StubKbs(tmp_path, bound=False), []
    try:
        with pytest.raises((Malformed, Refused)):
            session(made, made=lambda request: asked.append(request) or collect(request)).resource(URI)
        assert asked == []
    finally:
        made.stop()


def test_another_server_than_the_pinned_one(stub):
    broker = Broker(url=stub.url, key="sha256:" + "0" * 64)
    with pytest.raises(CasemateError):
        Session(broker, DOCUMENT, Attester("sample", collect), attempts=1, backoff=0.01).resource(URI)
    assert stub.seen == []
