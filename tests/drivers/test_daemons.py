"""Detached services: found again, repaired after kill -9, ended by their own record alone."""

import os
import signal
import sys

import msgspec
import pytest

from casemate.drivers import daemons, processes
from casemate.errors import Unavailable

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.fixture
def folder(tmp_path):
    yield tmp_path / "service"
    daemons.stop(tmp_path / "service", grace=1)


def ensure(folder, argv=SLEEP, answers=lambda: True, **options):
    return daemons.ensure(folder, argv, answers, name="sleeper", **options)


def test_a_running_service_is_found_again(folder):
    one = ensure(folder)
    assert ensure(folder) == one
    assert os.getsid(one.pid) == one.pid  # its own session: it outlives the command
    assert daemons.stop(folder)
    assert not processes.alive(one)
    assert not daemons.stop(folder)


def test_after_kill_9_a_new_one_is_started(folder):
    one = ensure(folder)
    os.kill(one.pid, signal.SIGKILL)
    processes.wait(one, 5)
    assert daemons.current(folder) is None
    two = ensure(folder)
    assert two.pid != one.pid


def test_a_reused_pid_is_not_hit(folder):
    one = ensure(folder)
    other = processes.record(os.getpid())
    forged = msgspec.structs.replace(other, started=other.started + 1)
    (folder / "process.json").write_bytes(msgspec.json.encode(forged))
    assert daemons.current(folder) is None
    assert not daemons.stop(folder)
    assert processes.alive(other)
    processes.end(one)


@pytest.mark.parametrize("record", [b"", b"{}", b"not json", b'{"pid":1,"started":1}'])
def test_a_broken_record_counts_as_none(folder, record):
    folder.mkdir()
    (folder / "process.json").write_bytes(record)
    assert daemons.current(folder) is None


def test_a_service_that_ends_at_once_says_why(folder):
    argv = [sys.executable, "-c", "import sys; sys.exit('no room on the disk')"]
    with pytest.raises(Unavailable, match="no room on the disk"):
        ensure(folder, argv, lambda: False)
    assert daemons.current(folder) is None


def test_a_service_that_does_not_answer_is_ended(folder):
    with pytest.raises(Unavailable, match="does not answer"):
        ensure(folder, answers=lambda: False, seconds=0.3)
    assert daemons.current(folder) is None


def test_nothing_to_stop(tmp_path):
    assert not daemons.stop(tmp_path / "nothing")
