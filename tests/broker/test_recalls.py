"""Less trust ends leases in the act itself: who still passes attests anew and goes on, who does not has nothing."""

import json
from datetime import timedelta

import pytest

from casemate.broker import leases, tenants, trust
from casemate.crypto import pins
from casemate.drivers.secretsclient import Secrets
from casemate.drivers.store import log as stored
from casemate.schema.endorsements import Anchor
from casemate.schema.reference import ReferenceValues
from casemate.testing import broker as brokers
from casemate.testing.broker import Guest, rules
from casemate.testing.tpm import FakeTpm, FakeVendor
from casemate.wire.encoding import b64

ADMIN = "/casemate/v0/admin"
ATTESTATION = 'package policy\nimport rego.v1\n\ntrust_claims := {"executables": 3}\n'
RESOURCE = "package policy\nimport rego.v1\n\ndefault allow := false\nallow := true\n"


def running(service, tenant="demo", vendor=None):
    """A guest that was given a resource, and its app."""
    app = service.found(tenant=tenant)
    Secrets(service.url, service.pin, service.admin_key).put(app.app_id, f"kbs:///{app.path}", b"value")
    guest = attested(service, app, vendor=vendor)
    assert guest.open(guest.get(app.path)) == b"value"
    return guest, app


def attested(service, app, lease="", vendor=None):
    guest = Guest(service, app.manifest, tpm=FakeTpm(vendor=vendor or service.vendor))
    guest.auth()
    answer = service.call("POST", "/kbs/v0/attest", guest.body(), Cookie=guest.cookie, **{"Casemate-Lease-Id": lease})
    guest.answer = answer
    guest.token = answer.json().get("token", "")
    return guest


def renewed(service, app, guest):
    """The same guest at half of its lease; the lease's id says whether it was renewed or is a new one."""
    lease = guest.answer.headers["casemate-lease-id"]
    again = attested(service, app, lease)
    return again, again.answer.status == 200 and again.answer.headers["casemate-lease-id"] == lease


def whys(service, app):
    found = leases.listing(service.broker, app_id=app.app_id, tenant=None, limit=100)
    return {one["why"] for one in found if one["state"] == "ended"}


def demand_over(service, app, guest, why):
    got = guest.get(app.path)
    assert (got.status, rules(got)) == (401, ["lease.live"])
    assert why in whys(service, app)


def demand_passes_anew(service, app, guest):
    again, same = renewed(service, app, guest)
    assert (again.answer.status, same) == (200, False)
    assert again.open(again.get(app.path)) == b"value"
    assert renewed(service, app, again)[1]


def entries(service, act):
    with service.broker.store.read() as tx:
        found = stored.period(tx, since=0, until=1 << 52, after=-1, limit=10000)
    return [service.broker.log.opened(one.id, one.sealed)[1] for one in found if f'"{act}"'.encode() in one.entry]


def call(service, method, path, body=None):
    bearer = f"Bearer {service.admin.token()}"
    got = service.call(method, path, body, Authorization=bearer)
    assert got.status == 200, got.body
    return got.json() if got.body else {}


@pytest.fixture
def own(tmp_path):
    """A broker of this test alone, for acts that concern everybody on it."""
    made = brokers.start(tmp_path)
    made.trust()
    yield made
    made.stop()


def test_another_attestation_policy_of_a_tenant(service):
    (guest, app), (other, foreign) = running(service, "acme"), running(service, "umbrella")
    guest, same = renewed(service, app, guest)
    assert same  # before the change a renewal is one
    policy = f"{ADMIN}/policies/attestation/default_cpu?tenant=acme"
    call(service, "PUT", policy, {"text": ATTESTATION + "# 1\n"})
    demand_over(service, app, guest, "policy.set")
    assert other.open(other.get(foreign.path)) == b"value"
    demand_passes_anew(service, app, guest)
    assert entries(service, "policy.set")[-1]["leases_ended"] == 1

    guest, _ = renewed(service, app, guest)
    call(service, "PUT", policy, {"text": ATTESTATION + "# 1\n"})  # the same text again changes nothing
    assert guest.get(app.path).status == 200
    call(service, "PUT", f"{ADMIN}/policies/resource/resource-policy?tenant=acme", {"text": RESOURCE})
    assert guest.get(app.path).status == 200  # that one is asked at each read
    call(service, "DELETE", policy)
    demand_over(service, app, guest, "policy.set")


def test_the_attestation_policy_of_the_whole_broker(own):
    (guest, app), (other, foreign) = running(own, "acme"), running(own, "umbrella")
    call(own, "PUT", f"{ADMIN}/policies/attestation/default_cpu", {"text": ATTESTATION + "# 2\n"})
    demand_over(own, app, guest, "policy.set")
    demand_over(own, foreign, other, "policy.set")
    demand_passes_anew(own, app, guest)


def test_reference_values_that_are_replaced_or_removed(own):
    guest, app = running(own)
    plain = FakeTpm(vendor=own.vendor).measurement.values
    add = own.admin.add_reference
    add(ReferenceValues(name="more", tee="tpm", values={"pcr4": "00"}))
    add(ReferenceValues(name="plain", tee="tpm", values=plain))
    assert guest.get(app.path).status == 200  # more images, or the same ones again, take nothing away
    add(ReferenceValues(name="plain", tee="tpm", values={**plain, "pcr4": "00" * 32}))
    demand_over(own, app, guest, "reference.add")
    refused = attested(own, app)
    assert (refused.answer.status, rules(refused.answer)) == (403, ["measurement.pcr4"])

    add(ReferenceValues(name="second", tee="tpm", values=plain))
    guest = attested(own, app)
    assert call(own, "DELETE", f"{ADMIN}/reference-values?name=more&tee=tpm") == {"leases_ended": 1}
    demand_passes_anew(own, app, guest)  # another image still fits
    call(own, "DELETE", f"{ADMIN}/reference-values?name=second&tee=tpm")
    assert attested(own, app).answer.status == 403
    assert {one.name for one in own.admin.references()} == {"plain"}
    missing = own.call(
        "DELETE", f"{ADMIN}/reference-values?name=x&tee=tpm", Authorization=f"Bearer {own.admin.token()}"
    )
    assert missing.status == 404
    assert [one["reference"] for one in entries(own, "reference.delete")] == ["more", "second"]


def test_reference_values_of_a_tenant_end_its_own_leases(service):
    (guest, app), (other, foreign) = running(service, "acme"), running(service, "umbrella")
    tenants.change(service.broker, "acme", tenants.Changes(unsigned_references=True), who="test")

    def say(value):
        payload = b64(json.dumps({"mine": value}).encode())
        message = {"version": "0.1.0", "type": "sample", "payload": payload}
        call(service, "POST", "/kbs/v0/reference-value?tenant=acme", message)

    say([1])
    say([1])
    assert guest.get(app.path).status == 200
    say([2])
    demand_over(service, app, guest, "reference.add")
    assert other.get(foreign.path).status == 200
    demand_passes_anew(service, app, guest)


def test_an_anchor_that_is_removed_or_vouches_for_less(own):
    vendor = FakeVendor()
    own.admin.add_anchor(vendor.anchor)
    (guest, app), (other, foreign) = running(own), running(own, vendor=vendor)
    own.admin.add_anchor(vendor.anchor)
    assert other.get(foreign.path).status == 200  # the same again
    there = f"{ADMIN}/anchors/{pins.digest(vendor.anchor.certificate)}"
    assert call(own, "DELETE", there) == {"leases_ended": 2}
    demand_over(own, app, guest, "anchor.delete")
    demand_over(own, foreign, other, "anchor.delete")
    demand_passes_anew(own, app, guest)
    assert attested(own, foreign, vendor=vendor).answer.status == 401
    assert own.call("DELETE", there, Authorization=f"Bearer {own.admin.token()}").status == 404

    guest = attested(own, app)
    own.admin.add_anchor(Anchor(certificate=own.vendor.certificate, platform_class="production"))
    demand_over(own, app, guest, "anchor.add")
    assert [one["anchor"] for one in entries(own, "anchor.delete")] == [pins.digest(vendor.anchor.certificate)]


def test_stricter_settings_at_a_restart(tmp_path):
    def started(refused, cautions):
        text = (tmp_path / "broker.toml").read_text() if (tmp_path / "broker.toml").exists() else ""
        kept = [line for line in text.splitlines() if not line.startswith(("refused_tees", "accepted_cautions"))]
        said = [f"refused_tees = {json.dumps(refused)}", f"accepted_cautions = {json.dumps(cautions)}"]
        if text:
            (tmp_path / "broker.toml").write_text("\n".join([*kept, *said]) + "\n")
        return brokers.start(tmp_path, refused_tees=tuple(refused), accepted_cautions=tuple(cautions))

    made = started(["sample"], ["snp.x"])
    made.trust()
    vendor = made.vendor
    guest, app = running(made)
    path, token, key = app.path, guest.token, guest.key
    made.stop()

    def reads(refused, cautions):
        made = started(refused, cautions)
        made.vendor = vendor
        again = Guest(made, app.manifest)
        again.token, again.key = token, key
        status = again.get(path).status
        ended = whys(made, app)
        told = [one for one in entries(made, "lease.end") if "settings" in one]
        made.stop()
        return status, ended, len(told)

    assert reads(["sample"], ["snp.x"]) == (200, set(), 0)
    assert reads(["sample"], ["snp.x", "tdx.y"]) == (200, set(), 0)  # more lenient
    assert reads(["sample"], ["snp.x"]) == (401, {"settings"}, 1)
    assert (tmp_path / trust.JUDGED).exists()


def test_a_first_start_ends_nothing_and_a_file_that_cannot_be_read_everything(service):
    guest, app = running(service)
    where = service.broker.settings.folder / trust.JUDGED
    where.unlink()
    trust.settled(service.broker)
    assert guest.get(app.path).status == 200
    where.write_text("{}")
    trust.settled(service.broker)
    demand_over(service, app, guest, "settings")
    service.clock.shift = timedelta()
    demand_passes_anew(service, app, guest)
