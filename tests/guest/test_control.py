"""The control channel from the guest's end: what the host may ask, whatever it sends, and that it holds nothing up."""

import base64
import json
import os
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from casemate.errors import Finding
from casemate.guest import control
from casemate.guest.asked import Asked
from casemate.guest.control import Control
from casemate.guest.supervise import Supervisor
from casemate.schema import manifest as manifests
from casemate.testing.broker import SIGNER
from casemate.wire import frames

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KINDS = st.sampled_from(["stop", "logs", "signal", "exec", "ping", "hello", "state", "x"])
MESSAGES = st.fixed_dictionaries(
    {"type": KINDS | JSON},
    optional={
        "id": JSON,
        "container": st.just("web") | JSON,
        "grace": JSON,
        "tail": JSON,
        "signal": st.sampled_from(["SIGKILL", "SIGHUP"]) | JSON,
        "command": JSON,
    },
)


def packed(message):
    """A frame of any JSON, canonical or not."""
    payload = json.dumps(message).encode()
    return frames.MARKER + len(payload).to_bytes(4, "big") + payload


class Nothing:
    """A control channel and a runtime that note what reaches them."""

    def __init__(self):
        self.done = []
        self.last_state = {"state": "running"}

    def reply(self, ident, answer):
        self.done.append(("reply", ident))

    def execute(self, *args, **kwargs):
        self.done.append(("execute", args))
        raise AssertionError("closed")


def manifest(**host):
    document = {
        "apiVersion": "casemate/v1",
        "name": "web",
        "app": "sha256:" + "0" * 64,
        "brokers": [{"url": "https://broker.example", "key": "sha256:" + "0" * 64}],
        "signers": [{"key": SIGNER, "images": ["registry.example/*"]}],
        "containers": [{"name": "web", "image": "registry.example/web@sha256:" + "0" * 64}],
        "host": host,
    }
    return manifests.from_builtins(document)


def asked(**host):
    spy = Nothing()
    stops = []
    supervisor = Supervisor(spy, lambda *_: None)
    return Asked(manifest(**host), supervisor, spy, stops.append), spy, stops


@given(MESSAGES)
def test_a_closed_manifest_answers_nothing_but_stop_and_ping(message):
    judge, spy, stops = asked()
    answer = judge(message)
    assert answer is None or answer["ok"] is False or message["type"] in ("stop", "ping")
    assert not spy.done
    assert all(0 <= grace <= 600 for grace in stops)


@given(MESSAGES)
def test_an_open_manifest_never_raises_either(message):
    judge, _, _ = asked(logs=True, exec=True, signals=["SIGHUP"])
    answer = judge(message)
    assert answer is None or isinstance(answer["ok"], bool)
    if message["type"] == "signal" and message.get("signal") != "SIGHUP":
        assert answer["ok"] is False


@pytest.mark.parametrize("kind", ["logs", "exec", "signal"])
def test_what_is_closed_says_where_it_is_opened(kind):
    judge, _, _ = asked()
    answer = judge({"type": kind, "container": "web", "signal": "SIGHUP", "command": ["true"]})
    assert answer["ok"] is False
    assert "host." in answer["hint"]


@pytest.mark.parametrize("grace", [-1, 601, float("inf"), "5", True, None, [1]])
def test_a_grace_that_is_no_time_stops_nothing(grace):
    judge, _, stops = asked()
    assert judge({"type": "stop", "grace": grace})["ok"] is False
    assert stops == []


def test_phases_states_and_replies_are_heard(host):
    channel = Control(host.listen().path, lambda message: {"ok": True, "echo": message["type"]})
    channel.hello("agent")
    channel.phase("attest", tee="tpm")
    channel.state("refused", "no\nway" + "x" * 5000, [Finding("a.b", "e" * 3000, "f\x1b[31m", "h")] * 100)
    told = host.wait(lambda m: m["type"] == "state")
    assert len(told["message"]) <= control.MAX_TEXT
    assert "\n" not in told["message"]
    assert len(told["findings"]) == control.MAX_FINDINGS
    assert told["findings"][0]["found"] == "f [31m"
    assert len(told["findings"][0]["expected"]) == 400
    assert host.ask(7, type="ping")["echo"] == "ping"
    assert host.ask("name", type="ping")["id"] == "name"
    channel.close()


def test_a_host_that_does_not_read_holds_nothing_up(host):
    channel = Control(host.path)
    for _ in range(700):
        channel.log("web", "stdout", "x" * 4000)
        channel.phase("run")
    channel.state("running")
    assert channel.lost > 600
    assert len(channel._queue) <= control._MAX_WAITING
    assert len(channel._logs) <= control._MAX_WAITING_LOGS
    host.listen()
    host.wait_state("running", 30)  # what matters most is still there when the host comes back
    channel.close()


def test_garbage_half_frames_and_oversized_frames_are_skipped(host):
    channel = Control(host.listen().path, lambda message: {"ok": True})
    host.send_raw(b"garbage" * 100)
    host.send_raw(frames.MARKER + (1 << 31).to_bytes(4, "big"))
    host.send_raw(frames.MARKER + (9).to_bytes(4, "big") + b"{not json")
    host.send_raw(frames.MARKER + (2).to_bytes(4, "big") + b"[]")
    assert host.ask(1, type="ping")["ok"] is True
    channel.close()


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.binary(max_size=200) | MESSAGES.map(packed), max_size=6))
def test_whatever_the_host_sends_the_agent_goes_on(host, parts):
    judge, _, _ = asked()
    if host._thread is None:
        host.listen()
    channel = Control(host.path, judge)
    for part in parts:
        host.send_raw(part)
    # A length in the garbage may swallow what follows it, up to one frame: fill that up first.
    host.send_raw(bytes(frames.MAX_FRAME + 64))
    token = os.urandom(8).hex()
    assert host.ask(token, type="ping")["ok"] is True
    channel.close()


def test_a_handler_that_fails_is_answered_and_survived(host):
    def broken(_):
        raise RuntimeError("the secret")

    channel = Control(host.listen().path, broken)
    answer = host.ask(1, type="ping")
    assert answer["ok"] is False
    assert "secret" not in json.dumps(answer)
    channel.close()


@pytest.mark.parametrize("ident", [[1], {"a": 1}, "x" * 65, 1 << 60, 1.5, True])
def test_a_request_with_a_strange_id_is_ignored(host, ident):
    calls = []
    channel = Control(host.listen().path, calls.append)
    host.send_raw(packed({"type": "stop", "id": ident}))
    host.send({"type": "ping", "id": 2})
    deadline = time.monotonic() + 5
    while not calls and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [call["type"] for call in calls] == ["ping"]
    channel.close()


def test_without_a_port_everything_goes_on():
    channel = Control(None)
    channel.hello("agent")
    channel.state("running")
    channel.close()


def test_the_port_is_found_by_its_name(tmp_path):
    for port, name in (("vport0p1", "other\n"), ("vport0p2", "casemate.ctl\n"), ("vport1p1", "casemate.ctl2")):
        (tmp_path / port).mkdir()
        (tmp_path / port / "name").write_text(name)
    (tmp_path / "vport9p9").mkdir()
    assert str(control.find_port(tmp_path)) == "/dev/vport0p2"
    assert control.find_port(tmp_path / "vport0p1") is None


def test_logs_are_closed_by_default_and_never_leave(machine, running):
    running(machine.settings(machine.container("echo out; echo err >&2; sleep 60")))
    machine.host.wait_state("running")
    assert machine.host.ask(1, type="logs", container="web", tail=10)["ok"] is False
    assert not [m for m in machine.host.messages if m["type"] == "log"]


def test_granted_logs_exec_and_signals(machine, running):
    settings_ = machine.settings(
        machine.container("trap 'echo hup' HUP; echo out; echo err >&2; while :; do sleep 0.05; done"),
        host={"logs": True, "exec": True, "signals": ["SIGHUP"]},
    )
    running(settings_)
    machine.host.wait_state("running")

    def text(stream):
        logs = [m for m in machine.host.messages if m["type"] == "log" and m["stream"] == stream]
        return b"".join(base64.b64decode(m["data"]) for m in logs)

    machine.host.wait(lambda m: m["type"] == "log" and m["stream"] == "stderr")
    machine.host.wait(lambda m: m["type"] == "log" and m["stream"] == "stdout")
    assert (text("stdout"), text("stderr")) == (b"out\n", b"err\n")
    kept = machine.host.ask(1, type="logs", container="web", tail=10)
    assert [(part["stream"], base64.b64decode(part["data"])) for part in kept["parts"]] == [
        ("stdout", b"out\n"),
        ("stderr", b"err\n"),
    ]
    assert machine.host.ask(2, type="logs", container="web", tail=0)["parts"] == []
    assert machine.host.ask(3, type="logs", container="other", tail=1)["ok"] is False
    done = machine.host.ask(4, type="exec", container="web", command=["/bin/sh", "-c", "echo hi; exit 4"])
    assert (done["code"], base64.b64decode(done["stdout"])) == (4, b"hi\n")
    assert machine.host.ask(5, type="exec", container="web", command=["a\0b"])["ok"] is False
    assert machine.host.ask(6, type="signal", container="web", signal="SIGKILL")["ok"] is False
    assert machine.host.ask(7, type="signal", container="web", signal="SIGHUP")["ok"] is True
    machine.host.wait(lambda m: m["type"] == "log" and base64.b64decode(m["data"]) == b"hup\n")
