"""The agent's story as a host process: real broker, real protocol; the workload is a shell instead of a container."""

import os
import signal
import stat
import time

import pytest


def until(check, seconds=10):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if check():
            return True
        time.sleep(0.01)
    return False


def state_of(host, state):
    return host.wait_state(state)


def test_a_workload_runs_and_stops_in_order(machine, running, tmp_path):
    uri = machine.secret("web/a/run", b"the secret")
    out = tmp_path / "out"
    command = f"echo $FROM $WORD $SECRET > {out}; trap 'exit 0' TERM; while :; do sleep 0.05; done"
    settings = machine.settings(
        machine.container(
            command,
            env=[{"name": "WORD", "value": "plain"}],
            secrets=[{"resource": uri, "env": "SECRET"}, {"resource": uri, "file": "/run/secrets/it"}],
        )
    )
    results = running(settings)
    state_of(machine.host, "running")
    assert until(out.exists)
    assert until(lambda: out.read_text() == "image plain the secret\n")
    phases = [m["name"] for m in machine.host.messages if m["type"] == "phase"]
    assert phases == ["agent", "attest", "keys", "pull", "verify", "unpack", "run"]
    machine.host.send({"type": "stop", "id": 1, "grace": 5})
    state_of(machine.host, "stopped")
    running.threads[0].join(10)
    assert results == ["stopped"]
    events = [(m["event"], m["code"]) for m in machine.host.messages if m["type"] == "container"]
    assert events == [("started", None), ("exited", 0)]


def test_a_secret_file_is_private_and_an_update_is_atomic_and_signalled(machine, running, tmp_path):
    uri = machine.secret("web/b/file", b"one")
    out = tmp_path / "signals"
    settings = machine.settings(
        machine.container(
            f"trap 'echo hup >> {out}' HUP; echo ready > {tmp_path}/ready; while :; do sleep 0.05; done",
            secrets=[{"resource": uri, "file": "/run/secrets/it", "signal": "SIGHUP"}],
            user=f"{os.getuid()}:{os.getgid()}",
        )
    )
    running(settings)
    state_of(machine.host, "running")
    assert until((tmp_path / "ready").exists)
    kept = settings.run / "secrets" / "web" / "0" / "it"
    assert kept.read_bytes() == b"one"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o400
    before = kept.stat().st_ino
    with kept.open("rb") as opened:
        machine.secret("web/b/file", b"two, and longer")
        assert until(lambda: kept.read_bytes() == b"two, and longer")
        assert opened.read() == b"one"  # who has the old file open reads the old value whole
    assert kept.stat().st_ino != before
    assert stat.S_IMODE(kept.stat().st_mode) == 0o400
    assert until(out.exists)
    assert [entry.name for entry in kept.parent.iterdir()] == ["it"]


def test_a_manifest_that_is_no_release_is_refused_with_the_rule(machine, running, capsys):
    results = running(machine.settings(register=False))
    told = state_of(machine.host, "refused")
    running.threads[0].join(10)
    assert results == ["refused"]
    assert "release.active" in [finding["rule"] for finding in told["findings"]]
    assert capsys.readouterr().out.startswith("casemate: refused: ")
    assert not machine.runtime.processes


def test_initdata_that_was_not_measured_is_refused(machine, running):
    settings = machine.settings()
    machine.tpm.initdata = b"another document"
    running(settings)
    told = state_of(machine.host, "refused")
    assert any("initdata" in finding["rule"] for finding in told["findings"])


def test_a_secret_of_another_app_is_refused(machine, running):
    other = str(machine.service.admin.found("tenant", "other", ("development",))["app_id"])
    machine.service.admin.put_resource(other, "kbs:///other/of/app", b"x")
    settings = machine.settings(machine.container(secrets=[{"resource": "kbs:///other/of/app", "env": "X"}]))
    running(settings)
    told = state_of(machine.host, "refused")
    assert told["findings"]


def test_a_broker_that_is_down_is_a_clear_failure(machine, running):
    settings = machine.settings(brokers=[{"url": "https://127.0.0.1:9", "key": machine.service.pin}], register=False)
    running(settings)
    told = state_of(machine.host, "failed")
    assert "127.0.0.1:9" in told["message"]


def test_a_broker_with_another_key_is_refused_before_anything_is_said(machine, running):
    url = machine.service.url
    running(machine.settings(brokers=[{"url": url, "key": "sha256:" + "0" * 64}], register=False))
    told = state_of(machine.host, "refused")
    assert [finding["rule"] for finding in told["findings"]] == ["tls.pin"]


def test_the_second_broker_serves_when_the_first_is_silent(machine, running):
    good = {"url": machine.service.url, "key": machine.service.pin}
    silent = {"url": "https://127.0.0.1:9", "key": "sha256:" + "0" * 64}
    running(machine.settings(brokers=[silent, good]))
    state_of(machine.host, "running")


def test_a_quorum_is_refused_rather_than_served_with_less(machine, running):
    good = {"url": machine.service.url, "key": machine.service.pin}
    more = {"url": "https://127.0.0.1:9", "key": "sha256:" + "0" * 64}
    running(machine.settings(brokers=[good, more], quorum=2))
    told = state_of(machine.host, "refused")
    assert told["findings"][0]["rule"] == "manifest.quorum"


def test_a_machine_below_the_minimum_is_refused(machine, running):
    running(machine.settings(minimum={"cpus": 4096, "memory_mib": 1 << 28}))
    told = state_of(machine.host, "refused")
    assert {finding["rule"] for finding in told["findings"]} == {"minimum.cpus", "minimum.memory"}


@pytest.mark.parametrize("content", [b"", b"not TOML =", b'version = "0.1.0"\n', b"\xff\xfe"])
def test_initdata_of_another_form_is_a_failure(machine, running, content):
    settings = machine.settings()
    settings.initdata.write_bytes(content)
    running(settings)
    assert "initdata" in state_of(machine.host, "failed")["message"]


def test_a_container_that_ends_badly_fails_the_workload(machine, running):
    running(machine.settings(machine.container("exit 3")))
    told = state_of(machine.host, "failed")
    assert told["message"] == "container web exited with code 3"


def test_containers_that_all_end_well_stop_the_workload(machine, running):
    running(machine.settings(machine.container("true")))
    state_of(machine.host, "stopped")


def test_a_container_is_restarted_by_its_policy(machine, running, tmp_path, monkeypatch):
    from casemate.guest import supervise

    monkeypatch.setattr(supervise, "FIRST_WAIT", 0.02)
    count = tmp_path / "count"
    command = f"echo x >> {count}; [ $(wc -l < {count}) -ge 3 ]"
    running(machine.settings(machine.container(command, restart="on-failure")))
    state_of(machine.host, "stopped")
    assert count.read_text().count("x") == 3
    events = [m["event"] for m in machine.host.messages if m["type"] == "container"]
    assert events == ["started", "exited", "restarting", "started", "exited", "restarting", "started", "exited"]


def test_a_container_that_ignores_its_stop_signal_is_killed(machine, running):
    running(machine.settings(machine.container("trap '' TERM; while :; do sleep 0.05; done", restart="always")))
    state_of(machine.host, "running")
    machine.host.send({"type": "stop", "id": 1, "grace": 0.2})
    state_of(machine.host, "stopped")
    codes = [m["code"] for m in machine.host.messages if m["type"] == "container" and m["event"] == "exited"]
    assert codes == [128 + signal.SIGKILL]


def test_a_failure_of_ours_tells_its_place_and_no_content(machine, running, monkeypatch, capsys):
    from casemate.guest import containers

    def broken(*_, **__):
        raise RuntimeError("the secret value")

    monkeypatch.setattr(containers, "build", broken)
    running(machine.settings())
    told = state_of(machine.host, "failed")
    running.threads[0].join(10)
    assert "RuntimeError" in told["message"]
    assert "secret value" not in str(told) + capsys.readouterr().out
