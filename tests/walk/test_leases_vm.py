"""A real VM: a rotated secret reaches it while it runs, and when its lease is ended for good it stops by itself."""

import sqlite3
import time

import pytest
from examples.demo import steps
from examples.demo.story import casemate

from casemate.drivers.secretsclient import Secrets

pytestmark = [pytest.mark.vm, pytest.mark.tools, pytest.mark.timeout(900)]


def leases(admin, stage, state):
    return [one["lease"] for one in admin.leases(stage.app) if one["state"] == state]


def test_rotation_renewal_and_the_end_of_a_lease(stage):
    steps.guest_image(stage)
    steps.trust_domain(stage)
    steps.image(stage)
    steps.found_and_release(stage)
    steps.start(stage)
    assert b"the first secret" in steps.wait_for(lambda: steps.get(stage, "/"), "the page")
    admin = Secrets.local(stage.story.home)

    line = stage.resource("page/line")
    casemate("secret", "rotate", line, "--app", stage.app, "--window", "5m", secret=b"the second secret")
    steps.wait_for(lambda: b"the second secret" in steps.get(stage, "/") or None, "the second secret")
    told = casemate("secret", "versions", line).document["versions"]
    assert [(v["version"], v["state"]) for v in told] == [(2, "newest"), (1, "opens")]

    # The lease is ended, and nothing speaks against another one: the workload goes on.
    first = leases(admin, stage, "live")
    assert len(first) == 1
    assert casemate("secret", "leases", "--app", stage.app, "--end").document["ended"] == 1
    steps.wait_for(lambda: leases(admin, stage, "live") or None, "a new lease")
    assert first == leases(admin, stage, "ended")
    assert b"the second secret" in steps.get(stage, "/")

    # Its guest image is not accepted any more: the lease is ended, no new one is given, and the guest stops.
    with sqlite3.connect(stage.story.home / "broker" / "store.db") as store:
        store.execute("DELETE FROM reference_values")
        store.execute("UPDATE generation SET value = 'changed by hand'")  # what a broker remembers ends with it
    assert casemate("secret", "leases", "--app", stage.app, "--end").document["ended"] == 1
    end = time.monotonic() + 120
    while (state := casemate("inspect", stage.workload).document)["state"] not in ("refused", "failed", "stopped"):
        assert time.monotonic() < end, state
        time.sleep(0.5)
    assert state["state"] == "refused", state
    assert "lease.live" in str(state)
    assert not leases(admin, stage, "live")
