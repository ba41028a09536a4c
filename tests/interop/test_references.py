"""Reference values as CoCo's tools register them, and who may: signed by a named key, or by name unsigned."""

import base64
import json
import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.interop.conftest import allow_unsigned, client

from casemate.drivers.store import accounts, rvps
from casemate.errors import Malformed
from casemate.policy.references import swid
from casemate.testing import broker as brokers
from casemate.testing import issuer
from casemate.testing.broker import rules
from casemate.testing.references import Publisher

PATH = "/kbs/v0/reference-value"
RIM = b"""<?xml version="1.0" encoding="UTF-8"?>
<SoftwareIdentity xmlns="http://standards.iso.org/iso/19770/-2/2015/schema.xsd"
  xmlns:rim="https://trustedcomputinggroup.org/resource/tcg-reference-integrity-manifest-rim-information-model/"
  xmlns:h="http://www.w3.org/2001/04/xmlenc#sha384">
<Meta edition="GPU-1" rim:PlatformManufacturerStr="Some Vendor"/>
<Payload>
<Resource type="Measurement" index="1" h:Hash0="%s" h:Hash1="%s"/>
<Resource type="Measurement" index="2" h:Hash0="%s"/>
<Resource type="File" index="3"/>
</Payload></SoftwareIdentity>""" % (b"0" * 96, b"AB" * 48, b"0" * 96)


def message(kind, payload, version="0.1.0"):
    raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return {"version": version, "type": kind, "payload": base64.b64encode(raw).decode()}


def admin(service, method, path, body=None):
    headers = {"Authorization": f"Bearer {service.admin.token()}"}
    return client(service).call(method, path, body, headers)


def register(service, kind, payload, query=""):
    return admin(service, "POST", PATH + query, message(kind, payload))


def test_a_sample_message_is_read_back(service):
    assert register(service, "sample", {"snp_bootloader": [10], "mr_td": ["ab"]}).status == 200
    assert register(service, "sample", {"snp_bootloader": [11]}).status == 200
    assert admin(service, "GET", f"{PATH}/snp_bootloader").json() == [11]
    assert admin(service, "GET", f"{PATH}/mr_td").json() == ["ab"]
    listed = admin(service, "GET", PATH).json()["reference_values"]
    assert {"snp_bootloader", "mr_td"} <= {entry["id"] for entry in listed}
    answer = admin(service, "GET", f"{PATH}/github.com/never/registered")
    assert (answer.status, answer.variant) == (404, "RvpsError")


def test_strangers_neither_read_nor_write(service):
    for method in ("GET", "POST"):
        assert client(service).call(method, PATH, b"{}").status == 401
    assert client(service).call("GET", f"{PATH}/mr_td").status == 401


def test_strict_trustee_says_401_for_an_absent_value(strict):
    answer = admin(strict, "GET", f"{PATH}/nothing")
    assert (answer.status, answer.variant) == (401, "RvpsError")


def test_unsigned_values_count_only_where_the_tenant_allows_them(tmp_path):
    made = brokers.start(tmp_path)
    try:
        with made.broker.store.write() as tx:  # the broker for tests allows them for all
            accounts.set_tenant(tx, None, "{}", made.broker.clock())
        allow_unsigned(made, "lab")
        refused = register(made, "sample", {"x": 1})
        assert (refused.status, refused.json()["reasons"][0]["rule"]) == (403, "reference.signature")
        assert register(made, "swid", RIM).status == 403
        assert register(made, "sample", {"x": 1}, "?tenant=lab").status == 200
        assert register(made, "sample", {"x": 1}, "?tenant=other").status == 403
        with made.broker.store.read() as tx:
            now = made.broker.clock()
            assert rvps.query(tx, "lab", "x", now) == 1
            assert rvps.query(tx, "other", "x", now) is None
    finally:
        made.stop()


def test_a_tenants_value_stands_before_the_brokers_and_both_end(service):
    now = datetime.now(UTC)
    more = {"signer": "", "source": "", "now": now}
    with service.broker.store.write() as tx:
        rvps.put(tx, "", {"both": 1, "ours": 2}, expires=now + timedelta(1), **more)
        rvps.put(tx, "t", {"both": 3}, expires=now + timedelta(hours=1), **more)
    with service.broker.store.read() as tx:
        assert rvps.query(tx, "t", "both", now) == 3
        assert rvps.query(tx, "t", "ours", now) == 2
        assert rvps.query(tx, "u", "both", now) == 1
        later = now + timedelta(hours=2)
        assert rvps.query(tx, "t", "both", later) == 1
        assert rvps.query(tx, "t", "ours", now + timedelta(2)) is None


def test_swid_gives_cocos_ids():
    found = swid.read(RIM)
    assert found == {"Some_Vendor.GPU_1.measurement_1": ["ab" * 48]}


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"<a/>",
        RIM.replace(b"<Soft", b'<!DOCTYPE x [<!ENTITY a "b">]><Soft', 1),
        RIM.replace(b'edition="GPU-1"', b""),
        RIM.replace(b'index="1"', b'index=" "'),
        RIM.replace(b"AB" * 48, b"AB"),
        RIM.replace(b"AB" * 48, b"0" * 96),
        b'<?xml version="1.0" encoding="no-such"?><a/>',
        b"<a>" * 100000,
    ],
)
def test_swid_that_is_none(bad):
    with pytest.raises(Malformed):
        swid.read(bad)


@given(st.binary(max_size=300) | st.builds(lambda i, b: RIM[:i] + b + RIM[i:], st.integers(0, 900), st.binary()))
def test_swid_raises_malformed_alone(data):
    try:
        swid.read(data)
    except Malformed:
        return


@pytest.mark.parametrize(
    ("kind", "make"),
    [("corim", "corim"), ("signed", "plain"), ("signed", "provenance"), ("corim", "jws")],
)
def test_a_signed_document_is_believed_when_its_signer_is_named(tmp_path, kind, make):
    publisher = Publisher(now=datetime.now(UTC))
    document = publisher.plain(as_jws=True) if make == "jws" else getattr(publisher, make)()
    (tmp_path / "signer.der").write_bytes(publisher.spki)
    made = brokers.start(tmp_path, reference_signers={"*": ["signer.der"]})
    try:
        answer = register(made, kind, document)
        assert answer.status == 200, answer.body
        listed = admin(made, "GET", PATH).json()["reference_values"]
        assert listed
        assert all(entry["signer"] for entry in listed)
        stranger = Publisher(now=datetime.now(UTC))
        refused = register(made, kind, getattr(stranger, "plain" if make == "jws" else make)())
        assert refused.status == 403
        assert "reference.signature" in [reason["rule"] for reason in refused.json()["reasons"]]
    finally:
        made.stop()


def test_what_nobody_signed_is_an_owners_on_every_route(tmp_path):
    """An operator registers what a named signer signed, and nothing else, though its tenant allows unsigned values."""
    publisher = Publisher(now=datetime.now(UTC))
    (tmp_path / "signer.der").write_bytes(publisher.spki)
    made = brokers.start(tmp_path, reference_signers={"lab": ["signer.der"]})
    try:
        allow_unsigned(made, "lab")
        operator = issuer.new_key("EdDSA")
        body = {"name": "op", "role": "operator", "key": issuer.public_pem(operator)}
        made.admin.call("POST", "/admins?tenant=lab", body)
        now = int(time.time())
        header = {"alg": "EdDSA", "kid": issuer.thumbprint(operator)}
        token = issuer.compact(operator, header, {"aud": "KBS", "iat": now, "exp": now + 300})

        def asked(path, document):
            return made.call("POST", path, document, Authorization=f"Bearer {token}")

        unsigned = publisher.plain("unsigned")
        for path, document in (
            (PATH, message("sample", {"x": 1})),
            (PATH, message("swid", RIM)),
            (PATH, message("signed", unsigned)),
            ("/casemate/v0/admin/reference-values", {"name": "x", "tee": "tpm", "values": {"pcr4": "ab"}}),
        ):
            answer = asked(path, document)
            assert (answer.status, rules(answer)) == (403, ["reference.signature"]), document
            assert "operator" in answer.json()["reasons"][0]["found"]
        assert asked(PATH, message("signed", publisher.plain())).status == 200
        assert register(made, "signed", unsigned, "?tenant=lab").status == 200  # an owner, where the tenant allows it
        assert register(made, "sample", {"x": 1}, "?tenant=lab").status == 200
    finally:
        made.stop()


@pytest.mark.parametrize(
    "change",
    [
        {"version": "9.0.0"},
        {"type": "tpm"},
        {"payload": "not base64!"},
        {"payload": base64.b64encode(b"[]").decode()},
        {"payload": base64.b64encode(b"{}").decode()},
        {"payload": base64.b64encode(b'{"a b": 1}').decode()},
        {"payload": base64.b64encode(b'{"a": 1, "a": 2}').decode()},
        {"type": "swid"},
    ],
)
def test_messages_that_are_none(service, change):
    answer = admin(service, "POST", PATH, {**message("sample", {"x": 1}), **change})
    assert (answer.status, answer.variant) == (400, "RvpsError")
