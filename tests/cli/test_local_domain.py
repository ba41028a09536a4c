"""up, status, app, release, secret, decisions, down: typed as a user would, on real programs."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from casemate.drivers import paths
from casemate.testing.broker import document

pytestmark = pytest.mark.tools


def run(home, *words, given=b"", code=0):
    """The JSON that a command prints."""
    environment = {**os.environ, "CASEMATE_HOME": str(home), "CASEMATE_CACHE": str(paths.cache())}
    argv = [sys.executable, "-m", "casemate", *map(str, words), "--json"]
    done = subprocess.run(argv, input=given, capture_output=True, env=environment, check=False)
    assert done.returncode == code, (words, done.stdout, done.stderr)
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def domain(tmp_path_factory):
    """(home, context) of a started domain."""
    home = tmp_path_factory.mktemp("domain") / "home"
    context = run(home, "up")
    yield home, context
    run(home, "down")


def test_up_again_changes_nothing(domain):
    home, context = domain
    assert run(home, "up") == context
    state = run(home, "status")
    assert state["broker"]["answers"]
    assert state["registry"]["answers"]


def test_what_lies_in_the_home_is_private(domain):
    home, _ = domain
    assert home.stat().st_mode & 0o077 == 0
    for name in (
        "admin.key",
        "broker/master.key",
        "broker/tls.key",
        "broker/service.log",
        "broker/broker.log",
        "broker/store.db",
        "context.json",
    ):
        assert (home / name).stat().st_mode & 0o077 == 0, name


def test_the_trust_file_is_what_a_verifier_reads(domain):
    from casemate.verifier import trust

    home, context = domain
    read = trust.read(home / "trust.json")
    assert (read.broker_url, read.broker_pin) == (context["broker"]["url"], context["broker"]["pin"])
    assert read.anchors[0].platform_class == "development"
    assert "pcr8" not in read.references[0].values
    assert {"pcr0", "pcr4", "pcr9"} <= set(read.references[0].values)


def test_apps_releases_and_secrets(domain, tmp_path):
    home, context = domain
    app = run(home, "app", "found", "--tenant", "demo", "--name", "web", "--platform", "development")["app_id"]
    manifest = tmp_path / "web.yaml"
    plain = document(app, context["broker"]["pin"], resources=["kbs:///cli/key/1"])
    manifest.write_text(yaml.safe_dump(plain))
    digest = run(home, "release", "add", app, manifest)["manifest_digest"]
    assert [r["state"] for r in run(home, "release", "list", app)["releases"]] == ["active"]
    assert run(home, "secret", "set", "kbs:///cli/key/1", "--app", app, given=b"from stdin")["version"] == 1
    file = tmp_path / "value"
    file.write_bytes(b"from a file")
    assert run(home, "secret", "set", "kbs:///cli/key/1", "--app", app, "--file", file)["version"] == 2
    (kept,) = run(home, "secret", "list", "--app", app)["resources"]
    assert kept == {"resource": "kbs:///cli/key/1", "version": 2, "purged": None}
    shown = run(home, "app", "show", app)
    assert shown["founding"]["tenant"] == "demo"
    assert "from" not in json.dumps(shown["resources"])
    run(home, "release", "revoke", app, digest)
    assert run(home, "app", "show", app)["releases"][0]["state"] == "revoked"
    assert app in [entry["app_id"] for entry in run(home, "app", "list")["apps"]]
    assert run(home, "app", "allow", app, "production")["platforms"] == ["production"]
    assert run(home, "secret", "rm", "kbs:///cli/key/1")["deleted"]
    assert run(home, "decisions", "--limit", "5")["decisions"] == []


def test_errors_are_sentences(domain):
    home, _ = domain
    app = "sha256:" + "0" * 64
    assert "no app" in run(home, "secret", "set", "kbs:///a/b/c", "--app", app, given=b"x", code=2)["error"]
    assert "empty" in run(home, "secret", "set", "kbs:///a/b/c", "--app", app, code=2)["error"]
    assert "not kbs:///" in run(home, "secret", "set", "a/b/c", "--app", app, given=b"x", code=2)["error"]


def test_a_killed_broker_is_told_and_repaired(domain):
    home, context = domain
    os.kill(context["broker"]["pid"], signal.SIGKILL)
    for _ in range(100):
        if not Path(f"/proc/{context['broker']['pid']}/exe").exists():
            break
        time.sleep(0.02)
    failed = run(home, "app", "list", code=1)
    assert "the broker does not answer" in failed["error"]
    assert failed["hint"]
    assert not run(home, "status", code=1)["broker"]["answers"]
    repaired = run(home, "up")
    assert repaired["broker"]["url"] == context["broker"]["url"]
    assert repaired["broker"]["pin"] == context["broker"]["pin"]
    assert repaired["broker"]["pid"] != context["broker"]["pid"]
    assert repaired["registry"] == context["registry"]


def test_two_ups_at_once_start_one_broker(domain):
    home, _ = domain
    run(home, "down")
    environment = {**os.environ, "CASEMATE_HOME": str(home), "CASEMATE_CACHE": str(paths.cache())}
    argv = [sys.executable, "-m", "casemate", "up", "--json"]
    both = [subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) for _ in "ab"]
    told = [json.loads(one.communicate()[0]) for one in both]
    assert told[0] == told[1]


def test_a_port_that_somebody_else_has(tmp_path):
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        run(home, "init", home / "broker", "--admin-key", home / "admin.key", "--port", taken.getsockname()[1])
        failed = run(home, "up", code=1)
    assert "the broker ended at once" in failed["error"]
    assert "can't listen" in failed["error"]


def test_without_a_domain(tmp_path):
    assert "no local trust domain" in run(tmp_path / "none", "app", "list", code=2)["error"]
    assert "no local trust domain" in run(tmp_path / "none", "status", code=2)["error"]
    assert run(tmp_path / "none", "down")["stopped"] == []


def test_init_and_serve_check(tmp_path):
    made = run(tmp_path / "h", "init", tmp_path / "broker", "--port", "9443")
    assert made["pin"].startswith("sha256:")
    again = run(tmp_path / "h", "init", tmp_path / "broker")
    assert again == made
    settings = run(tmp_path / "h", "serve", "--home", tmp_path / "broker", "--check")
    assert settings["port"] == 9443
    assert settings["refused_tees"] == ["sample"]
    assert "no broker" in run(tmp_path / "h", "serve", "--home", tmp_path / "nothing", "--check", code=2)["error"]
    (tmp_path / "broker" / "broker.toml").write_text("surprise = 1\n")
    assert "surprise" in run(tmp_path / "h", "serve", "--home", tmp_path / "broker", "--check", code=2)["error"]
    (tmp_path / "broker" / "master.key").chmod(0o644)
    (tmp_path / "broker" / "broker.toml").write_text("port = 9443\n")
    assert "open to other users" in run(tmp_path / "h", "serve", "--home", tmp_path / "broker", code=2)["error"]
