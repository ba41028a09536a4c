"""`casemate secret`, typed as a user would, against a real broker."""

import json

import pytest
from click.testing import CliRunner

import casemate.cli as cli
from casemate.testing import broker as brokers
from casemate.testing.broker import Guest


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    made = brokers.start(tmp_path_factory.mktemp("broker"))
    made.trust()
    yield made
    made.stop()


@pytest.fixture
def run(service, monkeypatch, tmp_path):
    """Runs a command; the JSON that it prints, or its text."""
    monkeypatch.setenv("CASEMATE_HOME", str(tmp_path))
    monkeypatch.setenv("CASEMATE_BROKER", service.url)
    monkeypatch.setenv("CASEMATE_BROKER_PIN", service.pin)
    monkeypatch.setenv("CASEMATE_ADMIN_KEY", str(service.admin_key))

    def call(*words, given=b"", code=0, text=False):
        done = CliRunner().invoke(cli.casemate, ["secret", *words, *([] if text else ["--json"])], input=given)
        assert done.exit_code == code, done.output
        return done.stdout if text or code == 2 else json.loads(done.stdout)

    return call


def test_a_secrets_life(run, service):
    app = service.found()
    uri, owner = f"kbs:///{app.path}", ("--app", app.app_id)
    assert run("set", uri, *owner, given=b"one")["version"] == 1
    assert run("rotate", uri, *owner, "--window", "1h", given=b"two")["version"] == 2
    assert run("rotate", uri, *owner, "--random", "32", "--window", "0")["version"] == 3
    states = [(v["version"], v["state"]) for v in run("versions", uri)["versions"]]
    assert states == [(3, "newest"), (2, "closed"), (1, "opens")]
    assert "OPENS UNTIL" in run("versions", uri, text=True)
    guest = Guest(service, app.manifest)
    guest.handshake()
    assert len(guest.open(guest.get(app.path))) == 32
    at = run("delete", uri, "--in", "3d")["purged"]
    assert run("list", *owner)["resources"] == [{"resource": uri, "version": 3, "purged": at}]
    assert "casemate secret undelete" in CliRunner().invoke(cli.casemate, ["secret", "versions", uri]).output
    run("undelete", uri)
    run("rm", uri)
    assert run("list", *owner)["resources"] == []


def test_a_mistyped_name_makes_no_new_secret(run, service):
    app = service.found()
    said = run("rotate", f"kbs:///{app.path}", "--app", app.app_id, given=b"x", code=2)
    assert "no resource" in said or "no path" in said
    assert run("list", "--app", app.app_id)["resources"] == []


@pytest.mark.parametrize("wrong", ["", "x", "-1", "1w", "1.5h", "9" * 12])
def test_durations_that_are_none(run, wrong):
    run("delete", "kbs:///a/b/c", "--in", wrong, code=2)


def test_leases_and_holders(run, service):
    app = service.found()
    guest = Guest(service, app.manifest)
    guest.handshake()
    [found] = run("leases", "--app", app.app_id)["leases"]
    assert (found["state"], found["tee"]) == ("live", "tpm")
    assert found["lease"][:12] in run("leases", "--app", app.app_id, text=True)
    assert run("leases", "--app", app.app_id, "--max", "1")["max_holders"] == 1
    assert Guest(service, app.manifest).handshake().status == 403
    assert run("leases", "--app", app.app_id, "--max", "any")["max_holders"] is None
    assert run("leases", "--app", app.app_id, "--tee", "snp", "--end")["ended"] == 0
    assert run("leases", "--app", app.app_id, "--end")["ended"] == 1
    run("leases", "--max", "3", code=2)
    run("leases", "--app", app.app_id, "--max", "many", code=2)


def test_the_master_key(run):
    state = run("rewrap", "--check")
    assert [one["kind"] for one in state["masters"]] == ["file"]
    assert state["unknown"] == []
    assert run("rewrap")["rewrapped"] == 0
