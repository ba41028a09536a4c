"""Leases as a guest lives with them: renewed at half, ended by the broker, wiped by the broker's time."""

import math
import threading
import time
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from casemate.drivers import http
from casemate.drivers.secretsclient import Secrets
from casemate.errors import Unavailable
from casemate.guest import attest, freshness
from casemate.guest.freshness import Freshness, Lease


@pytest.fixture
def admin(service):
    return Secrets(service.url, service.pin, service.admin_key)


@pytest.fixture
def leased(service, monkeypatch):
    """Leases of a few seconds, as the broker gives them."""

    def set_(seconds):
        changed = msgspec.structs.replace(service.broker.settings, lease_seconds=seconds)
        monkeypatch.setitem(vars(service.broker), "settings", changed)

    return set_


def begun(machine, running, **more):
    """An agent with a secret file and a variable; returns (results, the file in the guest)."""
    uri = machine.secret("web/lease/" + str(time.monotonic_ns()), b"one")
    settings = machine.settings(machine.container(secrets=[{"resource": uri, "file": "/run/secrets/it"}]))
    results = running(replace(settings, **more))
    machine.host.wait_state("running")
    written = [p for p in (settings.run / "secrets").rglob("it") if p.is_file()]
    assert [p.read_bytes() for p in written] == [b"one"]
    return results, uri, written[0]


def until(wanted, seconds=15):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if wanted():
            return
        time.sleep(0.02)
    raise AssertionError("it did not come")


def test_a_lease_is_renewed_at_half_again_and_again(machine, running, admin, leased):
    leased(2)
    begun(machine, running)
    first = admin.leases(machine.app)
    until(lambda: admin.leases(machine.app)[0]["expires"] > first[0]["expires"])
    time.sleep(2.5)  # longer than a lease
    assert [one["state"] for one in admin.leases(machine.app)] == ["live"]
    assert [m for m in machine.host.messages if m["type"] == "state"][-1]["state"] == "running"


def test_a_guest_that_cannot_renew_wipes_its_files_and_stops(machine, running, leased, monkeypatch):
    leased(2)
    results, _, path = begun(machine, running)

    def dropped(*_, **__):
        raise Unavailable("dropped")

    monkeypatch.setattr(http.Connection, "request", dropped)
    told = machine.host.wait_state("refused")
    running.threads[0].join(15)
    assert results == ["refused"]
    assert [f["rule"] for f in told["findings"]] == ["lease.live"]
    assert not path.exists()


def test_an_ended_lease_is_had_anew_without_a_stop(machine, running, admin):
    _, uri, path = begun(machine, running)
    before = admin.leases(machine.app)[0]["lease"]
    assert admin.end_leases(app=machine.app) == 1
    until(lambda: any(one["state"] == "live" for one in admin.leases(machine.app)))
    assert before not in [one["lease"] for one in admin.leases(machine.app) if one["state"] == "live"]
    admin.put(machine.app, uri, b"two")
    until(lambda: path.read_bytes() == b"two")


def test_an_ended_lease_that_policy_no_longer_gives_ends_the_workload(machine, running, admin, service, monkeypatch):
    monkeypatch.setattr(attest, "RECALLED", 0.3)
    results, _, path = begun(machine, running)
    machine.tpm.initdata = b"another machine now"  # what attesting anew shows is refused
    admin.end_leases(app=machine.app)
    told = machine.host.wait_state("refused")
    running.threads[0].join(15)
    assert results == ["refused"]
    assert [f["rule"] for f in told["findings"]] == ["lease.live"]
    assert not path.exists()


def test_a_platform_that_is_taken_from_the_app_ends_the_workload(machine, running, service):
    results, _, path = begun(machine, running)
    service.admin.allow(machine.app, ("production",))
    told = machine.host.wait_state("refused")
    running.threads[0].join(15)
    assert results == ["refused"]
    assert [f["rule"] for f in told["findings"]] == ["platform.class"]
    assert not path.exists()


def test_a_workload_that_ends_gives_its_lease_back(machine, running, admin):
    begun(machine, running)
    machine.host.send({"type": "stop", "id": "end", "grace": 0})
    running.threads[0].join(20)
    until(lambda: [one["why"] for one in admin.leases(machine.app)] == ["released"])


def test_a_token_for_others_takes_no_place(machine, running, admin):
    from casemate.guest.attest import Attester
    from casemate.guest.resources import Brokers

    admin.set_holders(machine.app, 1)
    settings = machine.settings()
    brokers = Brokers(machine.manifest, settings.initdata.read_bytes(), Attester("tpm", machine.tpm.collect))
    brokers.login()
    assert brokers.throwaway_token()
    assert len(admin.leases(machine.app)) == 1
    assert brokers.lease().seconds == 600
    brokers.close(give_back=True)
    assert [one["state"] for one in admin.leases(machine.app)] == ["ended"]


def test_no_place_is_a_refusal_with_its_reason(machine, running, admin, service):
    admin.set_holders(machine.app, 1)
    settings = machine.settings()
    from casemate.guest.attest import Attester
    from casemate.guest.resources import Brokers

    other = Brokers(machine.manifest, settings.initdata.read_bytes(), Attester("tpm", machine.tpm.collect))
    other.login()
    results = running(settings)
    told = machine.host.wait_state("refused")
    assert [f["rule"] for f in told["findings"]] == ["lease.holders"]
    running.threads[0].join(10)
    assert results == ["refused"]
    other.close(give_back=True)


# The arithmetic


def test_a_lease_is_counted_from_the_question():
    lease = Lease.given(100.0, 600)
    assert (lease.ends, lease.renew) == (700.0, 400.0)
    assert lease.shortened(200.0, 500) is lease  # the broker says the same
    assert lease.shortened(200.0, 5000) is lease  # and can't make it longer without an attestation
    slow = lease.shortened(200.0, 100)  # the host's clock runs slow: the broker says that less is left
    assert (slow.ends, slow.renew) == (300.0, 250.0)
    assert Lease().ends == math.inf
    assert Lease().shortened(10.0, 30).ends == 40.0


def test_a_lease_that_shrinks_is_seen(monkeypatch):
    monkeypatch.setattr(freshness, "_LOOK_SECONDS", 0.05)
    held, told = [Lease.given(Freshness.now(), 600)], []
    watched = Freshness(600, told.append, lambda: held[0])
    thread = threading.Thread(target=watched.watch, args=(threading.Event(),))
    thread.start()
    held[0] = held[0].shortened(Freshness.now(), 0.1)
    thread.join(10)
    assert [refusal.findings[0].rule for refusal in told] == ["lease.live"]


def test_a_renewal_that_fails_is_tried_again_but_not_at_once():
    held = [Lease.given(Freshness.now() - 350, 600)]
    fresh = Freshness(600, lambda _: None, lambda: held[0])
    fresh._tried -= 1000
    assert fresh.must_renew()
    assert not fresh.must_renew()
    held[0] = Lease()
    assert not fresh.must_renew()


@pytest.mark.parametrize("told", ["", "-1", "1e9", "x", "9999999999", "\uff15"])
def test_headers_that_are_no_seconds(told):
    from casemate.drivers.http import Response
    from casemate.guest.attest import Attester, Session
    from casemate.schema.manifest import Broker

    session = Session(Broker(url="https://broker.example", key="sha256:" + "00" * 32), b"", Attester("tpm", None))
    session._note(Response(200, {"casemate-lease": told, "casemate-lease-id": "ab"}, b""), 0.0)
    assert session.lease == Lease()
    assert Path(session.url)
