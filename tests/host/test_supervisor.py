"""A supervisor over a stand-in for QEMU: each way a workload can go, and each process killed in the middle."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import msgspec
import pytest

from casemate.drivers import processes
from casemate.errors import Unusable
from casemate.host import control, keeping, launch, plan, requests, stop, workloads
from casemate.host.state import DONE, LIVE, Port, State, VolumeDisk

STANDIN = Path(__file__).with_name("standin.py")
RUNNING = 'say:{"type":"state","state":"running","findings":[],"message":""}'
FINDING = {"rule": "release.active", "result": "fail", "expected": "a", "found": "b\x1b[2J", "hint": "c"}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("CASEMATE_HOME", str(folder))
    yield folder
    for workload, state in workloads.everything():
        if state.state in LIVE:
            stop.stop(workload, grace=0)


def begin(*steps, name="web", start_seconds=30.0, **grants):
    """Start a supervisor over the stand-in with these steps."""
    with workloads.registry():
        state = State(id="", name=name, created=time.time(), tee="tpm", containers=control.expect(["one", "two"]))
        workload = workloads.create(state)
    made = plan.Plan(
        qemu=[sys.executable, str(STANDIN), *steps],
        containers=["one", "two"],
        start_seconds=start_seconds,
        farewell_seconds=0.5,
        **grants,
    )
    (workload.folder / plan.PLAN).write_bytes(msgspec.json.encode(made))
    launch.start(workload)
    return workload


def until(workload, condition, seconds=15.0):
    deadline = time.monotonic() + seconds
    while not condition(state := workloads.settle(workload)):
        assert time.monotonic() < deadline, state
        time.sleep(0.01)
    return state


def ended(workload):
    until(workload, lambda s: s.state in DONE)
    stop._until_unminded(workload)
    return workload.read()


def test_runs_and_stops_gracefully():
    workload = begin(
        "hello", 'say:{"type":"phase","name":"agent","t":5.5,"detail":{"rss":28}}', RUNNING,
        'say:{"type":"container","name":"one","event":"started","code":null}', "serve",
    )  # fmt: skip
    state = until(workload, lambda s: s.containers["one"].event == "started")
    assert state.state == "running"
    assert (state.agent, state.phases[0].name, state.phases[0].t) == ("stand-in", "agent", 5.5)
    assert processes.alive(state.supervisor)
    assert processes.alive(state.qemu)
    state = stop.stop(workload, grace=7)
    assert (state.state, state.message) == ("stopped", "grace 7")
    assert state.containers["one"].code == 0
    assert sorted(p.name for p in workload.folder.iterdir() if p.is_socket()) == []
    assert not processes.alive(state.qemu)
    stop.remove(workload)
    assert [p.name for p in workloads.root().iterdir()] == [".lock"]


def test_stop_is_firm_with_a_deaf_guest():
    workload = begin("hello", RUNNING, "deaf")
    until(workload, lambda s: s.state == "running")
    state = stop.stop(workload, grace=0)
    assert state.state == "stopped"
    assert "did not stop in time" in state.message


def test_stop_kills_what_ignores_qmp_too():
    workload = begin("hello", RUNNING, "mule")
    until(workload, lambda s: s.state == "running")
    state = stop.stop(workload, grace=0)
    assert state.state == "stopped"
    assert not processes.alive(state.qemu)


def test_stop_before_the_agent_is_there():
    workload = begin("serve")
    until(workload, lambda s: s.state == "starting")
    assert stop.stop(workload).message == "stopped before it ran"


def test_stop_of_a_guest_that_waits_for_its_broker():
    workload = begin("hello", "deaf")
    until(workload, lambda s: s.agent)
    state = stop.stop(workload, grace=300)
    assert (state.state, state.message) == ("stopped", "stopped before it ran")


def test_refusal_is_recorded_with_its_findings_and_stays():
    said = json.dumps({"type": "state", "state": "refused", "findings": [FINDING], "message": "no key"})
    later = 'say:{"type":"state","state":"stopped","findings":[],"message":""}'
    workload = begin("hello", f"say:{said}", later, "exit:0")
    state = ended(workload)
    assert (state.state, state.message) == ("refused", "no key")
    assert state.findings[0]["rule"] == "release.active"
    assert "\x1b" not in state.findings[0]["found"]


def test_a_guest_that_fails_and_does_not_power_off_is_ended():
    said = 'say:{"type":"state","state":"failed","findings":[],"message":"pull"}'
    workload = begin("hello", said, "deaf")
    state = ended(workload)
    assert (state.state, state.message) == ("failed", "pull")
    assert not processes.alive(state.qemu)


def test_rm_waits_for_the_end_of_a_vm_that_said_its_last_word():
    said = 'say:{"type":"state","state":"refused","findings":[],"message":""}'
    workload = begin("hello", said, "deaf")
    until(workload, lambda s: s.state == "refused")
    stop.remove(workload)
    assert [p.name for p in workloads.root().iterdir()] == [".lock"]


def test_less_patience_the_second_time():
    workload = begin("hello", RUNNING, "deaf")
    until(workload, lambda s: s.state == "running")
    requests.ask(workload.folder, {"request": "stop", "grace": 500})
    assert workloads.settle(workload).state == "stopping"
    assert stop.stop(workload, grace=0).state == "stopped"


def test_crash_is_seen_with_the_last_console_lines():
    workload = begin(
        "console:first line", "console:Kernel panic - not syncing", "hello", RUNNING, "sleep:0.3", "exit:3"
    )
    state = ended(workload)
    assert state.state == "failed"
    assert "QEMU ended with code 3" in state.message
    assert state.console[-1] == "Kernel panic - not syncing"


def test_qemu_that_does_not_start_is_explained():
    state = ended(begin("fail:could not set up host forwarding rule"))
    assert state.state == "failed"
    assert "host forwarding rule" in state.message


def test_a_start_that_takes_too_long():
    state = ended(begin("hello", "serve", start_seconds=0.5))
    assert state.state == "failed"
    assert "did not come up" in state.message


def test_kill_of_qemu():
    workload = begin("hello", RUNNING, "serve")
    state = until(workload, lambda s: s.state == "running")
    os.kill(state.qemu.pid, signal.SIGKILL)
    assert "by signal 9" in ended(workload).message


def test_kill_of_the_supervisor_next_command_tells_the_truth_and_works():
    workload = begin("hello", RUNNING, "serve")
    state = until(workload, lambda s: s.state == "running")
    os.kill(state.supervisor.pid, signal.SIGKILL)
    assert processes.wait(state.supervisor, 5)
    assert processes.alive(state.qemu)
    listed = {w.id: s for w, s in workloads.everything()}[workload.id]
    assert listed.state == "failed"
    assert "supervisor ended unexpectedly" in listed.message
    assert not processes.alive(state.qemu)
    assert stop.stop(workload).state == "failed"
    stop.remove(workload)


def test_a_supervisor_that_can_not_begin_is_explained():
    with workloads.registry():
        workload = workloads.create(State(id="", name="web", created=time.time()))
    launch.start(workload)  # there is no plan
    assert "can't be read" in until(workload, lambda s: s.state in DONE).message


def test_kill_of_the_command_while_it_prepares():
    with workloads.registry():
        workload = workloads.create(State(id="", name="web", created=time.time()))
    assert workloads.settle(workload).state == "preparing"
    workload.release()  # what the kernel does when the command dies
    assert "ended before its VM ran" in workloads.settle(workload).message
    stop.remove(workload)


def test_two_side_by_side():
    first, second = begin("hello", RUNNING, "serve", name="a"), begin("hello", RUNNING, "serve", name="b")
    for workload in (first, second):
        until(workload, lambda s: s.state == "running")
    assert stop.stop(first).state == "stopped"
    assert workloads.settle(second).state == "running"
    with pytest.raises(Unusable, match="is running"):
        stop.remove(second)
    stop.remove(second, force=True)


def test_sigterm_to_the_supervisor_stops_gracefully():
    workload = begin("hello", RUNNING, "serve")
    state = until(workload, lambda s: s.state == "running")
    os.kill(state.supervisor.pid, signal.SIGTERM)
    assert ended(workload).state == "stopped"


def test_requests_go_by_the_manifest():
    workload = begin("hello", RUNNING, "serve", exec=False, signals=["SIGHUP"])
    until(workload, lambda s: s.state == "running")
    folder = workload.folder
    with pytest.raises(Unusable, match="does not grant exec"):
        requests.ask(folder, {"request": "exec", "container": "one", "command": ["id"]})
    with pytest.raises(Unusable, match="does not grant signal"):
        requests.ask(folder, {"request": "signal", "container": "one", "signal": "SIGUSR1"})
    with pytest.raises(Unusable, match="no such container"):
        requests.ask(folder, {"request": "signal", "container": "three", "signal": "SIGHUP"})
    with pytest.raises(Unusable, match="no such request"):
        requests.ask(folder, {"request": "format"})
    reply = requests.ask(folder, {"request": "signal", "container": "one", "signal": "SIGHUP"})["reply"]
    assert reply["echo"] == {"type": "signal", "id": 1, "container": "one", "signal": "SIGHUP"}


def test_a_reply_that_cannot_be_passed_on_does_not_end_the_workload():
    workload = begin("hello", RUNNING, "serve", signals=["SIGUSR1", "SIGUSR2", "SIGHUP"])
    until(workload, lambda s: s.state == "running" and s.agent)
    for number in ("SIGUSR1", "SIGUSR2"):
        with pytest.raises(Unusable, match="can't be passed on"):
            requests.ask(workload.folder, {"request": "signal", "container": "one", "signal": number})
    asked = {"request": "signal", "container": "one", "signal": "SIGHUP"}
    assert requests.ask(workload.folder, asked)["reply"]["echo"]["signal"] == "SIGHUP"
    assert workloads.settle(workload).state == "running"


@pytest.mark.parametrize("granted", [True, False])
def test_logs_are_kept_only_when_granted(granted):
    line = 'say:{"type":"log","container":"one","stream":"stdout","data":"aGVsbG8K"}'
    workload = begin("hello", line, RUNNING, "serve", logs=granted)
    until(workload, lambda s: s.state == "running")
    assert (workload.folder / keeping.LOG).exists() is granted


def test_rubbish_on_the_channel_does_no_harm():
    workload = begin("hello", "raw:" + (b"CMF1\xff\xff\xff\xff" + bytes(range(256)) * 20).hex(), RUNNING, "serve")
    assert until(workload, lambda s: s.state == "running").state == "running"


def test_an_unreadable_record_shows_and_goes(home):
    with workloads.registry():
        workload = workloads.create(State(id="", name="web", created=time.time()))
    workload.release()
    (workload.folder / workloads.STATE).write_text("{")
    [(found, state)] = workloads.everything()
    assert (state.state, found.id) == ("failed", workload.id)
    assert "can't be read" in state.message
    stop.remove(found)


def test_leftovers_of_killed_commands_are_swept():
    draft = workloads.root() / ".new-0011223344556677"
    draft.mkdir()
    (draft / "lock").touch()
    trash = workloads.root() / ".trash-0011223344556677"
    trash.mkdir()
    workloads.sweep()
    assert not draft.exists()
    assert not trash.exists()


def test_names_and_ids_resolve():
    with workloads.registry():
        one = workloads.create(State(id="", name="one", created=1.0))
        two = workloads.create(State(id="", name="two", created=2.0))
    assert workloads.resolve("one").id == one.id
    assert workloads.resolve(two.id[:8]).id == two.id
    with pytest.raises(Unusable, match="no workload"):
        workloads.resolve("three")
    with pytest.raises(Unusable):
        workloads.resolve("")
    for workload in (one, two):
        workload.release()


def test_state_survives_a_round_trip():
    state = State(
        id="i", name="n", ports=[Port(address="127.0.0.1", host=1, container=2)],
        volumes=[VolumeDisk(name="d", path="/p", size_mib=64)], qemu=processes.record(os.getpid()),
    )  # fmt: skip
    assert msgspec.json.decode(msgspec.json.encode(state), type=State) == state
