"""`casemate init` and `casemate trust write`: from an empty folder to a file by which others know the broker."""

import json

import pytest
from click.testing import CliRunner

from casemate.broker import prepare, settings
from casemate.broker.assemble import assemble
from casemate.cli import casemate
from casemate.ledger import note
from casemate.testing import broker as brokers
from casemate.verifier import trust


def run(*words, home=None):
    environment = {"CASEMATE_HOME": str(home)} if home else {}
    return CliRunner().invoke(casemate, [*map(str, words)], env=environment)


@pytest.mark.parametrize("words", [[""], [" "], ["b", "--admin-key", ""], ["b", "--store", ""]])
def test_an_unset_variable_makes_no_broker(tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    done = run("init", *words)
    assert done.exit_code == 2
    assert "is a variable unset?" in done.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("host", ["not a host", "", "300.1.1.1", "-a", "a..b", "https://a", "a:1", "[::1]", "x" * 64])
def test_what_is_no_host(tmp_path, host):
    done = run("init", tmp_path / "b", "--host", host)
    assert done.exit_code == 2
    assert "neither an IP address nor a host name" in done.output
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "::1", "localhost", "broker.example", "broker-1.example."])
def test_hosts(tmp_path, host):
    assert run("init", tmp_path / "b", "--host", host).exit_code == 0
    assert settings.load(tmp_path / "b").host == host


def test_the_operator_writes_a_trust_file(tmp_path):
    folder, file = tmp_path / "b", tmp_path / "trust.json"
    assert run("init", folder).exit_code == 0
    words = ["trust", "write", file, "--home", folder]
    done = run(*words)
    assert done.exit_code == 2
    assert "casemate serve --home" in done.output
    assert not (folder / "store.db").exists()
    assemble(settings.load(folder)).close()
    assert run(*words, "--url", "broker.example").exit_code == 2
    done = run(*words, "--url", "https://broker.example:8443/", "--json")
    assert done.exit_code == 0, done.output
    pin = prepare.pin(folder)
    assert json.loads(done.output)["pin"] == pin
    read = trust.read(file)
    assert (read.broker_url, read.broker_pin) == ("https://broker.example:8443", pin)
    assert all(isinstance(key.verifier, note.Verifier) for key in read.demand_log().keys)
    with pytest.raises(trust.Unusable, match="no service can be judged"):
        read.demand_platforms()
    told = run(*words)
    assert told.exit_code == 2
    assert "is there already" in told.output
    assert run(*words, "--force").exit_code == 0
    assert trust.read(file).broker_url == "https://localhost:8443"


def test_an_admin_writes_the_same_of_a_running_broker(tmp_path):
    service = brokers.start(tmp_path / "broker")
    try:
        service.trust()
        context = {"broker": {"url": service.url, "pin": service.pin}, "admin_key": str(service.admin_key)}
        (tmp_path / "context.json").write_text(json.dumps(context))
        done = run("trust", "write", tmp_path / "a.json", home=tmp_path)
        assert done.exit_code == 0, done.output
        done = run("trust", "write", tmp_path / "o.json", "--home", tmp_path / "broker", "--url", service.url)
        assert done.exit_code == 0, done.output
    finally:
        service.stop()
    asked, read = trust.read(tmp_path / "a.json"), trust.read(tmp_path / "o.json")
    assert asked == read
    assert asked.anchors
    asked.demand_platforms()


def test_the_missing_file_names_the_command(tmp_path):
    for words in (["log", "tail"], ["receipt", "verify", "-"], ["audit", "report"]):
        assert "casemate trust write FILE --home FOLDER" in run(*words, home=tmp_path).output
