"""Workloads in real VMs: the guest's words reach the host, two run side by side, rude ends, memory within bounds."""

import os
import signal
import socket
import time

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from casemate.drivers import processes
from casemate.host import guestimage, keeping, launch, stop, workloads
from casemate.host.launch import Options
from casemate.host.state import DONE
from casemate.schema import manifest as manifests

pytestmark = [pytest.mark.vm, pytest.mark.timeout(600)]
APP = "sha256:" + "1" * 64
MEMORY_BESIDE_THE_GUEST = 150


@pytest.fixture(scope="module")
def image():
    return guestimage.ensure()


@pytest.fixture
def home(tmp_path, monkeypatch):
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("CASEMATE_HOME", str(folder))
    yield folder
    for workload, state in workloads.everything():
        if state.state not in DONE:
            stop.stop(workload, grace=0)


@pytest.fixture
def silent_broker():
    """Accepts connections and never says a word, so that a guest stays where it asks for its keys."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"https://10.0.2.2:{server.getsockname()[1]}"


def manifest(broker):
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
    return manifests.from_builtins(
        {
            "apiVersion": "casemate/v1",
            "name": "web",
            "app": APP,
            "brokers": [{"url": broker, "key": APP}],
            "signers": [{"key": pem, "images": ["registry.example/*"]}],
            "containers": [{"name": "one", "image": "registry.example/web@" + APP}],
        }
    )


def start(image, broker, **options):
    workload = launch.prepare(manifest(broker), image, Options(**options), lambda text: None)
    launch.start(workload)
    return workload


def until(workload, condition, seconds=240):
    deadline = time.monotonic() + seconds
    while not condition(state := workloads.settle(workload)):
        console = keeping.last_lines(workload.folder / "console.log")
        assert time.monotonic() < deadline, (state, console)
        assert state.state not in DONE, (state, console)
        time.sleep(0.1)
    return state


def test_a_broker_that_is_down_is_told_in_a_sentence(image, home):
    workload = start(image, "https://10.0.2.2:1")
    state = launch.wait(workload, lambda seen: None, seconds=300)
    assert state.state == "failed", state
    assert "10.0.2.2:1" in state.message
    assert state.phases[0].name == "agent"
    assert 0 < state.phases[0].t < state.phases[0].at
    stop.remove(workload)
    assert not (home / "workloads" / state.id).exists()


def test_two_vms_stopped_and_killed(image, home, silent_broker):
    first, second = start(image, silent_broker), start(image, silent_broker)
    for workload in (first, second):
        until(workload, lambda s: s.agent)
    state = workloads.settle(first)
    os.kill(state.qemu.pid, signal.SIGKILL)
    processes.wait(state.qemu, 10)
    ended = launch.wait(first, lambda seen: None, seconds=30)
    assert (ended.state, "signal 9" in ended.message) == ("failed", True)
    peak = processes.memory_mib(workloads.settle(second).qemu)[1]
    assert 100 < peak <= 512 + MEMORY_BESIDE_THE_GUEST
    done = stop.stop(second, grace=20)
    assert (done.state, done.message) == ("stopped", "stopped before it ran")
    for workload in (first, second):
        stop.remove(workload)
    assert [p.name for p in (home / "workloads").iterdir()] == [".lock"]


def test_a_dead_supervisor_with_a_real_vm(image, home, silent_broker):
    workload = start(image, silent_broker)
    state = until(workload, lambda s: s.qemu is not None)
    os.kill(state.supervisor.pid, signal.SIGKILL)
    processes.wait(state.supervisor, 10)
    [(_, listed)] = workloads.everything()
    assert "supervisor ended unexpectedly" in listed.message
    assert not processes.alive(state.qemu)
    assert not processes.alive(state.swtpm)
