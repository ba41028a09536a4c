"""Policies that are only tried never take what guests and monitors need."""

import threading
import time
from types import SimpleNamespace

import pytest
from starlette.responses import Response
from starlette.routing import Route

from casemate.api.answers import route
from casemate.drivers.rego import pool as pools
from casemate.testing import broker as brokers

from .console.conftest import Person, admin_of, token

TEXT = "package policy\nimport rego.v1\nallow := true\n"
CHECK = "/casemate/v0/admin/policies/check"


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    """A broker with one thread for requests."""
    made = brokers.start(tmp_path_factory.mktemp("narrow"), threads=1, console=True)
    made.trust()
    made.admins = {}
    for name in ("acme", "umbrella", "third"):
        made.found(name, "web")
        made.admins[name] = admin_of(made, name, "auditor")
    yield made
    made.stop()


@pytest.fixture
def stuck(monkeypatch):
    """A compiler that is at it until `go`."""
    begun, go, compile_policy = threading.Semaphore(0), threading.Event(), pools.compile_policy

    def slow(text):
        begun.release()
        assert go.wait(60)
        return compile_policy(text)

    monkeypatch.setattr(pools, "compile_policy", slow)
    yield SimpleNamespace(begun=begun, go=go)
    go.set()


def check(service, name, text=TEXT):
    """The answer to a check by a tenant's auditor."""
    shown = token(service.admins[name].key)
    return service.call("POST", CHECK, {"kind": "resource", "text": text}, Authorization=f"Bearer {shown}")


def begin(service, name, got, text=TEXT):
    """A check that is under way."""
    made = threading.Thread(target=lambda: got.append(check(service, name, text).status))
    made.start()
    return made


def test_tenants_take_turns_and_requests_go_on(narrow, stuck):
    ann, got = Person(narrow), []
    assert ann.enter(token(narrow.admins["acme"].key)) == 303
    first = begin(narrow, "acme", got)
    assert stuck.begun.acquire(timeout=20)
    assert narrow.call("GET", "/casemate/v0/info").status == 200  # the one thread is free
    beyond = check(narrow, "acme")
    assert (beyond.status, int(beyond.headers["retry-after"]) > 0) == (429, True)
    form = {"csrf": ann.csrf(), "policy": "resource/resource-policy", "text": TEXT, "paths": "a/b/c"}
    status, headers, text = ann.ask("POST", "/simulate", form)
    assert (status, "retry-after" in headers, "another policy is being tried" in text) == (429, True, True)
    second = begin(narrow, "umbrella", got, TEXT + "# another\n")
    assert stuck.begun.acquire(timeout=20)
    third = begin(narrow, "third", got, TEXT + "# a third\n")  # waits in turn
    while "third" not in narrow.app.state.trials._held:
        time.sleep(0.01)
    assert check(narrow, "third").status == 429
    stuck.go.set()
    for made in (first, second, third):
        made.join(30)
    assert got == [200, 200, 200]
    assert check(narrow, "acme").status == 200


def test_what_is_tried_is_not_kept(narrow):
    pool = narrow.broker.policies.pool
    before = dict(pool._compiled)
    assert check(narrow, "acme", TEXT + "# tried\n").status == 200
    assert pool._compiled == before


def test_the_broker_is_alive_while_every_thread_is_busy(narrow):
    begun, go = threading.Event(), threading.Event()

    def slow(request, body):
        begun.set()
        go.wait(60)
        return Response("done")

    narrow.app.router.routes.append(Route("/slow", route(0, slow)))
    asking = threading.Thread(target=lambda: narrow.call("GET", "/slow"))
    asking.start()
    try:
        assert begun.wait(20)
        assert narrow.call("GET", "/healthz").json() == {"alive": True}
    finally:
        go.set()
        asking.join(30)
