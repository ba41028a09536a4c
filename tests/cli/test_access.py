"""`casemate admin`, `tenant`, `approval` and `key` against a real broker."""

import json

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization

from casemate.cli import casemate
from casemate.crypto import selfsigned
from casemate.drivers import keyfiles
from casemate.testing import broker as brokers
from casemate.testing import issuer as fakes


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    made = brokers.start(tmp_path_factory.mktemp("broker"))
    yield made
    made.stop()


@pytest.fixture
def call(service, tmp_path, monkeypatch):
    """Run a command as one of the admins; its output as JSON."""
    monkeypatch.setenv("CASEMATE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CASEMATE_BROKER", service.url)
    monkeypatch.setenv("CASEMATE_BROKER_PIN", service.pin)

    def run(*words, key=service.admin_key, code=0):
        monkeypatch.setenv("CASEMATE_ADMIN_KEY", str(key))
        done = CliRunner().invoke(casemate, [*words, "--json"])
        assert done.exit_code == code, done.output
        return json.loads(done.stdout)

    return run


@pytest.fixture
def key(tmp_path):
    def make(name):
        path = tmp_path / f"{name}.pem"
        keyfiles.write(path, selfsigned.key_pem(fakes.new_key("ES256")))
        return path

    return make


def test_admins(call, key):
    call("tenant", "add", "acme")
    ann = key("ann")
    made = call("admin", "add", "ann", "--role", "operator", "--tenant", "acme", "--key", str(ann))
    assert made["who"] == "key#acme/ann"
    assert "PRIVATE" not in json.dumps(made)
    assert call("admin", "whoami", key=ann) == {"who": "key#acme/ann", "role": "operator", "tenant": "acme"}
    assert [a["who"] for a in call("admin", "list")["admins"]] == ["key#acme/ann"]
    assert call("admin", "list", key=ann)["admins"][0]["role"] == "operator"
    refused = call("admin", "add", "x", "--role", "owner", "--key", str(ann), key=ann, code=1)
    assert refused["reasons"][0]["rule"] == "admin.role"
    call("admin", "remove", "key#acme/ann")
    assert call("admin", "whoami", key=ann, code=1)["reasons"][0]["rule"] == "admin.token"


def test_an_owner_of_a_tenant_needs_the_word_of_who_holds_the_key(call, key, tmp_path):
    call("tenant", "add", "word")
    ann, bob, eve = key("ann2"), key("bob"), key("eve")
    call("admin", "add", "ann", "--role", "owner", "--tenant", "word", "--key", str(ann))
    public = {}
    for name, path in (("bob", bob), ("eve", eve)):
        public[name] = tmp_path / f"{name}.pub"
        private = serialization.load_pem_private_key(path.read_bytes(), None)
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        public[name].write_bytes(private.public_key().public_bytes(serialization.Encoding.PEM, form))
    add = ("admin", "add", "bob", "--role", "operator", "--key", str(public["bob"]))
    assert call(*add, key=ann, code=1)["reasons"][0]["rule"] == "admin.proof"
    proof = call("admin", "proof", "--tenant", "word", "--key", str(bob))["proof"]
    assert call(*add, "--proof", proof, key=ann)["who"] == "key#word/bob"
    call("admin", "add", "eve", "--role", "operator", "--key", str(eve), key=ann)  # a private key makes it itself
    assert call("admin", "proof", "--tenant", "word", "--key", str(public["eve"]), code=2)


def test_an_admin_is_known_by_one_thing(call, key, tmp_path):
    assert call("admin", "add", "x", "--role", "owner", code=2)
    assert call("admin", "add", "x", "--role", "owner", "--key", str(key("x")), "--issuer", "https://a.b", code=2)
    (tmp_path / "none.pem").write_text("nothing")
    assert call("admin", "add", "x", "--role", "owner", "--key", str(tmp_path / "none.pem"), code=2)
    assert call("admin", "add", "x", "--role", "owner", "--key", str(tmp_path / "missing.pem"), code=2)


def test_a_token_for_curl(call, service):
    token = call("admin", "token", "--seconds", "60")["token"]
    got = service.call("GET", "/casemate/v0/admin/whoami", Authorization=f"Bearer {token}")
    assert got.json()["who"] == "init#admin"


def test_the_two_person_rule(call, key):
    call("tenant", "add", "pair")
    ann, bea = key("ann"), key("bea")
    for name, path in (("ann", ann), ("bea", bea)):
        call("admin", "add", name, "--role", "owner", "--tenant", "pair", "--key", str(path))
    app = call("app", "found", "--tenant", "pair", "--name", "web", key=ann)["app_id"]
    assert call("tenant", "set", "pair", "--two-person", "app.platforms", key=ann)["two_person"] == ["app.platforms"]
    waits = call("app", "allow", app, "development", key=ann, code=1)
    assert waits["kind"] == "Pending"
    (listed,) = call("approval", "list", key=bea)["approvals"]
    assert listed["approval"] in waits["error"]
    assert call("approval", "show", listed["approval"], key=bea)["body"] == '{"platforms": ["development"]}'
    refused = call("approval", "approve", listed["approval"], key=ann, code=1)
    assert refused["reasons"][0]["rule"] == "approval.other"
    done = call("approval", "approve", listed["approval"], "--digest", listed["digest"], key=bea)
    assert done["outcome"]["status"] == 200
    assert call("approval", "list", key=bea)["approvals"] == []
    assert len(call("approval", "list", "--all", key=bea)["approvals"]) == 1
    lifted = call("tenant", "set", "pair", "--one-person", key=ann, code=1)
    assert lifted["kind"] == "Pending"
    (listed,) = call("approval", "list", key=bea)["approvals"]
    assert call("approval", "reject", listed["approval"], key=bea)["state"] == "rejected"


def test_tenants(call):
    call("tenant", "add", "solo")
    assert call("tenant", "add", "solo", code=1)["reasons"][0]["rule"] == "tenant.name"
    done = call("tenant", "set", "solo", "--unsigned-references", "--max-decisions", "5")
    assert (done["unsigned_references"], done["max_decisions"]) == (True, 5)
    assert call("tenant", "set", "solo", "--signed-references")["max_decisions"] == 5
    assert "*" in {t["tenant"] for t in call("tenant", "list")["tenants"]}
    assert call("tenant", "set", "nobody", code=2)


def test_audiences_and_keys(call):
    app = call("app", "found", "--tenant", "aud", "--name", "web")["app_id"]
    assert call("app", "audiences", app, "https://vault.example") == {"audiences": ["https://vault.example"]}
    assert call("app", "audiences", app) == {"audiences": ["https://vault.example"]}
    assert call("app", "audiences", app, "--none") == {"audiences": []}
    states = [one["state"] for one in call("key", "rotate", "--lead", "60")["keys"]]
    assert sorted(states) == ["current", "current", "next", "next"]
    assert call("key", "list")["keys"]


@pytest.mark.parametrize("missing", ["CASEMATE_BROKER", "CASEMATE_BROKER_PIN"])
def test_half_a_broker_is_none(call, monkeypatch, missing):
    monkeypatch.delenv(missing)
    done = CliRunner().invoke(casemate, ["admin", "list"], env={"CASEMATE_ADMIN_KEY": ""})
    assert done.exit_code == 2
    assert "CASEMATE_ADMIN_KEY" in done.output


def test_text_for_people(call, monkeypatch, service):
    monkeypatch.setenv("CASEMATE_ADMIN_KEY", str(service.admin_key))
    for words in (["admin", "list"], ["tenant", "list"], ["approval", "list"], ["key", "list"], ["admin", "whoami"]):
        assert CliRunner().invoke(casemate, words).exit_code == 0
