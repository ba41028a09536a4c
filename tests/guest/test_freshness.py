"""A release that was revoked, or that nobody can judge, ends: with secret files, with other resources, with none."""

import threading
import time
from dataclasses import replace
from uuid import uuid4

import pytest

from casemate.drivers import http
from casemate.errors import Refused, Unavailable


def settings_of(machine, kind, **more):
    """An agent whose workload has a secret file, a secret variable alone, or nothing to ask for."""
    secrets = []
    if kind != "nothing":
        where = {"file": "/run/secrets/it"} if kind == "file" else {"env": "IT"}
        secrets = [{"resource": machine.secret(f"web/{kind}/{uuid4().hex}", b"value"), **where}]
    return replace(machine.settings(machine.container(secrets=secrets)), **more)


@pytest.mark.parametrize("kind", ["file", "env", "nothing"])
def test_a_revoked_release_ends_whatever_it_lists(machine, running, kind):
    results = running(settings_of(machine, kind, silence_seconds=0.4 if kind == "nothing" else 600.0))
    machine.host.wait_state("running")
    machine.service.admin.revoke_release(machine.app, machine.manifest.digest)
    told = machine.host.wait_state("refused")
    running.threads[0].join(10)
    assert results == ["refused"]
    assert "release.active" in [finding["rule"] for finding in told["findings"]]


@pytest.mark.parametrize("kind", ["file", "env", "nothing"])
def test_silence_that_lasts_ends_the_workload(machine, running, kind, monkeypatch):
    """The host drops what goes to the broker: no answer, no error, only the monotonic clock."""
    results = running(settings_of(machine, kind, silence_seconds=0.5))
    machine.host.wait_state("running")

    def dropped(*_, **__):
        raise Unavailable("dropped")

    monkeypatch.setattr(http.Connection, "request", dropped)
    told = machine.host.wait_state("refused")
    running.threads[0].join(10)
    assert results == ["refused"]
    assert [(f["rule"], f["expected"]) for f in told["findings"]] == [
        ("release.fresh", "an answer of the broker within 0.5 seconds")
    ]
    assert told["findings"][0]["hint"]


def test_a_broker_that_holds_the_line_does_not_hold_the_bound(machine, running, monkeypatch):
    held = threading.Event()

    def holding(*_, **__):
        held.wait(20)
        raise Unavailable("held")

    running(settings_of(machine, "file", silence_seconds=0.5))
    machine.host.wait_state("running")
    monkeypatch.setattr(http.Connection, "request", holding)
    told = machine.host.wait_state("refused", 15)
    held.set()
    assert [f["rule"] for f in told["findings"]] == ["release.fresh"]


def test_somebody_else_in_the_brokers_place_is_silence(machine, running, monkeypatch):
    def another(*_, **__):
        raise Refused.because("tls.pin", expected="the broker's key", found="another", hint="")

    running(settings_of(machine, "file", silence_seconds=0.5))
    machine.host.wait_state("running")
    monkeypatch.setattr(http.Connection, "request", another)
    assert [f["rule"] for f in machine.host.wait_state("refused")["findings"]] == ["release.fresh"]


@pytest.mark.parametrize("kind", ["file", "env", "nothing"])
def test_a_broker_that_answers_keeps_it_running(machine, running, kind):
    """Several times the bound; a resource that was deleted meanwhile is no silence."""
    running(settings_of(machine, kind, silence_seconds=0.8))
    machine.host.wait_state("running")
    began = time.monotonic()
    for secret in machine.manifest.containers[0].secrets:
        machine.service.admin.delete_resource(secret.resource)
    while time.monotonic() - began < 1.6:
        assert [m for m in machine.host.messages if m["type"] == "state"][-1]["state"] == "running"
        time.sleep(0.05)
