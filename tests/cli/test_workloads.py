"""`casemate run`, `ps`, `inspect`, `logs`, `stop`, `rm` as people type them; a stand-in plays QEMU, swtpm is real.

Also the rude ends: Ctrl-C and kill -9 of the command in the middle.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from casemate.drivers import processes
from casemate.host.guestimage.image import FilePaper, Paper
from casemate.host.pool import Pool
from casemate.host.state import State

pytestmark = [
    pytest.mark.tools,
    pytest.mark.skipif(shutil.which("swtpm") is None, reason="swtpm is not installed; make setup installs it"),
]
STANDIN = Path(__file__).parents[1] / "host" / "standin.py"
APP = "sha256:" + "1" * 64
RUNNING = 'say:{"type":"state","state":"running","findings":[],"message":""}'
LOG = 'say:{"type":"log","container":"one","stream":"stdout","data":"bGluZSAxCmxpbmUgMgo="}'
PHASE = 'say:{"type":"phase","name":"agent","t":5.5,"detail":{}}'
REFUSED = (
    'say:{"type":"state","state":"refused","message":"no key","findings":[{"rule":"release.active","result":"fail",'
    '"expected":"an active release","found":"none","hint":"register it"}]}'
)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    folder.chmod(0o700)
    Pool(folder / "tpm").prepare(2)
    return folder


class Desk:
    """A home, an image of four small files, a manifest, and a QEMU in PATH that plays a scenario."""

    def __init__(self, home: Path, folder: Path):
        self.home, self.folder = home, folder
        image = folder / "image"
        image.mkdir()
        files = {}
        for name in ("firmware.fd", "kernel", "initrd", "disk.img"):
            (image / name).write_bytes(name.encode())
            files[name] = FilePaper(hashlib.sha256(name.encode()).hexdigest(), len(name))
        paper = Paper(
            name="guest", command_line="console=ttyS0", roothash="", files=files, recorded={}, measurements={},
            lock="", lock_committed=True, inputs="", packages=[],
        )  # fmt: skip
        (image / "image.json").write_bytes(msgspec.json.encode(paper))
        self.manifest = folder / "web.json"
        self.write_manifest()

    def write_manifest(self, **changes):
        key = ec.generate_private_key(ec.SECP256R1()).public_key()
        pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
        document = {
            "apiVersion": "casemate/v1", "name": "web", "app": APP,
            "brokers": [{"url": "https://10.0.2.2:1", "key": APP}],
            "signers": [{"key": pem, "images": ["registry.example/*"]}],
            "containers": [{"name": "one", "image": "registry.example/web@" + APP, "ports": [{"container": 443}]}],
            "host": {"logs": True},
        }  # fmt: skip
        self.manifest.write_text(json.dumps({**document, **changes}))

    def play(self, *steps):
        program = self.folder / "bin" / "qemu-system-x86_64"
        program.parent.mkdir(exist_ok=True)
        words = " ".join("'" + step + "'" for step in steps)
        program.write_text(
            f'#!/bin/sh\n[ "$1" = --version ] && echo QEMU emulator version 10.0.2 && exit\n'
            f"exec {sys.executable} {STANDIN} {words}\n"
        )
        program.chmod(0o755)

    @property
    def environment(self):
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        return {**os.environ, "CASEMATE_HOME": str(self.home), "PATH": path, "CASEMATE_ACCELERATOR": "tcg"}

    def argv(self, *words):
        return [sys.executable, "-m", "casemate", *map(str, words)]

    def __call__(self, *words, code=0):
        done = subprocess.run(self.argv(*words), env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return json.loads(done.stdout) if "--json" in words else done.stdout + done.stderr

    def run(self, *words, code=0):
        return self("run", self.manifest, "--guest", self.folder / "image", *words, code=code)

    def start(self, *words):
        """`casemate run` as a child of its own."""
        argv = self.argv("run", self.manifest, "--guest", self.folder / "image", *words)
        return subprocess.Popen(argv, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def only(self):
        states = self("ps", "--json")
        return states[0] if states else None

    def until(self, condition, seconds=20):
        deadline = time.monotonic() + seconds
        while not condition(state := self.only()):
            assert time.monotonic() < deadline, state
            time.sleep(0.05)
        return state


@pytest.fixture
def desk(home, tmp_path):
    made = Desk(home, tmp_path)
    yield made
    for state in made("ps", "--json"):
        made("rm", "--force", "--volumes", state["id"])


def test_the_life_of_a_workload(desk):
    desk.play("hello", PHASE, LOG, RUNNING, "serve")
    said = desk.run("--publish", "0:443")
    assert "agent" in said
    assert "is running" in said
    state = desk("inspect", "web", "--json")
    assert (state["state"], state["phases"][0]["t"], state["ports"][0]["container"]) == ("running", 5.5, 443)
    assert state["firmware_seconds"] is not None
    assert state["qemu_resident_mib"] > 0
    row = desk("ps").splitlines()[1]
    assert row.split()[1:4] == ["web", "running", "tpm"]
    assert f"127.0.0.1:{state['ports'][0]['host']}->443" in row
    assert desk("logs", "web") == "line 1\nline 2\n"
    assert desk("logs", "web", "--json")[0]["container"] == "one"
    assert desk("logs", "web", "--console", "--json") == []
    assert "phase      agent" in desk("inspect", "web")
    assert "is running" in desk("rm", "web", code=2)
    assert desk("stop", "web") == "web: stopped\n"
    assert desk("stop", "web", "--json")[0]["state"] == "stopped"
    assert desk("logs", "web", "--tail", 1, "--follow") == "line 1\nline 2\n"
    assert desk("rm", "web", "--json")["removed"][0]["name"] == "web"
    assert desk("ps", "--json") == []
    assert sorted(p.name for p in (desk.home / "workloads").iterdir()) == [".lock"]


def test_a_refusal_names_each_rule(desk):
    desk.play("hello", REFUSED, "exit:0")
    said = desk.run(code=1)
    for part in ("release.active", "an active release", "register it", "no key"):
        assert part in said
    shown = desk("inspect", "web", "--json")
    assert (shown["state"], shown["findings"][0]["rule"]) == ("refused", "release.active")
    again = desk.run("--name", "other", "--json", code=1)
    assert again["findings"] == shown["findings"]


def test_a_crash_shows_the_console(desk):
    desk.play("console:Kernel panic", "exit:1")
    said = desk.run(code=1)
    assert "Kernel panic" in said
    assert "ended unexpectedly" in said


def test_logs_that_are_not_granted_are_explained(desk):
    desk.write_manifest(host={})
    desk.play("hello", LOG, RUNNING, "serve")
    desk.run()
    assert "does not grant" in desk("logs", "web", code=2)


def test_no_wait_returns_at_once(desk):
    desk.play("sleep:0.5", "hello", RUNNING, "serve")
    assert desk.run("--no-wait", "--json")["state"] in {"preparing", "starting"}
    desk.until(lambda s: s["state"] == "running")


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["--publish", "x"], "is not"),
        (["--volume", "x"], "NAME=VALUE"),
        (["--volume-size", "data=big"], "number of MiB"),
        (["--tee", "nope"], "not known"),
        (["--tee", "snp"], "KVM"),
        (["--memory", "128"], "at least"),
    ],
    ids=str,
)
def test_wrong_words_leave_nothing(desk, words, wanted):
    desk.play("hello", RUNNING, "serve")
    assert wanted in desk.run(*words, code=2)
    assert desk("ps", "--json") == []


@pytest.mark.parametrize("text", ["", "{", "[]", "a: [b", "apiVersion: casemate/v2\n", "x" * (2 << 20)], ids=len)
def test_a_malformed_manifest(desk, text):
    desk.manifest = desk.folder / "web.yaml"
    desk.manifest.write_text(text)
    desk.play("hello")
    desk.run(code=2)
    assert desk("ps", "--json") == []


def test_unknown_workloads(desk):
    for word in ("inspect", "stop", "rm", "logs"):
        assert "no workload" in desk(word, "nobody", code=2)


def test_an_interrupt_stops_and_removes(desk):
    desk.play("hello", "serve")
    child = desk.start()
    state = desk.until(lambda s: s and s["agent"])
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=30)
    assert child.returncode == 130
    assert desk.only() is None
    assert not processes.alive(msgspec.convert(state["qemu"], processes.Process))


def test_a_killed_command_leaves_a_workload_that_goes_on(desk):
    desk.play("sleep:1", "hello", RUNNING, "serve")
    child = desk.start()
    desk.until(lambda s: s and s["state"] == "starting")
    child.kill()
    child.communicate()
    assert desk.until(lambda s: s["state"] == "running")["name"] == "web"
    assert desk("stop", "web") == "web: stopped\n"


@pytest.mark.parametrize("moment", [0.25, 0.4, 0.55])
def test_a_command_killed_at_any_moment_is_no_obstacle(desk, moment):
    desk.play("hello", RUNNING, "serve")
    child = desk.start("--no-wait")
    time.sleep(moment)
    child.kill()
    child.communicate()
    for state in desk("ps", "--json"):
        assert state["state"] in {"failed", "preparing", "starting", "running"}
    desk("run", desk.manifest, "--guest", desk.folder / "image", "--name", "next")
    assert desk("inspect", "next", "--json")["state"] == "running"


def test_two_side_by_side(desk):
    desk.play("hello", RUNNING, "serve")
    desk.run()
    desk.run()
    assert [s["name"] for s in desk("ps", "--json")] == ["web", "web-2"]
    desk("stop", "web", "web-2")
    assert desk("ps", "--live", "--json") == []


def test_a_dead_supervisor_is_told(desk):
    desk.play("hello", RUNNING, "serve")
    state = msgspec.convert(desk.run("--json"), State, strict=False)
    os.kill(state.supervisor.pid, signal.SIGKILL)
    os.kill(state.swtpm.pid, signal.SIGSTOP)  # even one that does not listen is ended
    assert "supervisor ended unexpectedly" in desk("inspect", "web")
    assert not processes.alive(state.swtpm)
    assert not processes.alive(state.qemu)
