"""Processes by pid and start time: a reused pid is never taken for the old process."""

import os
import signal
import subprocess
import sys

import msgspec

from casemate.drivers import processes

STUBBORN = "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"


def sleeper(code="import time; print(1, flush=True); time.sleep(60)"):
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    child.stdout.readline()
    return child, processes.record(child.pid)


def test_alive_and_ended():
    child, known = sleeper()
    assert processes.alive(known)
    assert processes.memory_mib(known)[1] > 0
    assert processes.end(known, grace=5)
    assert not processes.alive(known)
    assert processes.memory_mib(known) == (0, 0)
    assert processes.record(child.pid) is None
    child.stdout.close()


def test_the_stubborn_one_is_killed():
    child, known = sleeper(STUBBORN)
    assert processes.end(known, grace=0.1)
    assert not processes.alive(known)
    child.stdout.close()


def test_another_start_time_is_another_process():
    child, known = sleeper()
    for other in (
        msgspec.structs.replace(known, started=known.started + 1),
        msgspec.structs.replace(known, boot="another boot"),
        msgspec.structs.replace(known, pid=1),
        None,
    ):
        assert not processes.alive(other)
        assert processes.end(other, grace=0.1)
    assert not processes.send(msgspec.structs.replace(known, started=0), signal.SIGKILL)
    assert child.poll() is None
    processes.end(known, grace=1)
    child.stdout.close()


def test_a_zombie_is_not_alive():
    child = subprocess.Popen([sys.executable, "-c", ""])
    known = processes.record(child.pid)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not processes.alive(known)
    child.wait()


def test_a_name_with_parentheses(tmp_path):
    program = tmp_path / ") S 1 (x"
    program.symlink_to(sys.executable)
    child = subprocess.Popen([str(program), "-S", "-c", "import time; time.sleep(60)"], stdin=subprocess.DEVNULL)
    known = processes.record(child.pid)
    assert known is not None
    assert processes.alive(known)
    processes.end(known, grace=1)
