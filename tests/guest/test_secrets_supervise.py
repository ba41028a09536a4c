"""Secrets that change under way, and containers that start, die and stop in every order."""

import errno
import os
import signal
import stat
import subprocess
import threading
import time

import pytest

from casemate.errors import Refused, Unavailable
from casemate.guest import supervise
from casemate.guest.attest import Resource
from casemate.guest.secrets import Keeper, Kept, write
from casemate.guest.supervise import Supervisor, Task
from casemate.guest.users import User
from casemate.schema.manifest import Container, Secret

ME = User(os.getuid(), os.getgid())
IMAGE = "registry.example/web@sha256:" + "0" * 64


class Source:
    """Resources with versions, as a broker has them."""

    def __init__(self, **values):
        self.values = {f"kbs:///a/b/{name}": [value] for name, value in values.items()}
        self.silent = False

    def put(self, name, value):
        self.values[f"kbs:///a/b/{name}"].append(value)

    def versioned(self, uri):
        return Resource(self.values[uri][-1], str(len(self.values[uri])))

    def changed(self, uri, known):
        if self.silent:
            raise Unavailable("silent")
        found = self.versioned(uri)
        return None if found.version == known else found


def kept(folder, name, container="web", **more):
    (folder / container).mkdir(exist_ok=True)
    secret = Secret(resource=f"kbs:///a/b/{name}", file=f"/run/secrets/{name}", **more)
    return Kept(container, secret, folder / container / name, ME)


def test_changes_are_written_first_and_signalled_once_per_container(tmp_path):
    source, signals = Source(cert=b"c1", key=b"k1", other=b"o1"), []
    entries = [
        kept(tmp_path, "cert", signal="SIGHUP"),
        kept(tmp_path, "key", signal="SIGHUP"),
        kept(tmp_path, "other"),
        kept(tmp_path, "key", container="second", signal="SIGUSR1"),
    ]

    def signalled(container, name):
        signals.append((container, name, (tmp_path / "web/cert").read_bytes(), (tmp_path / "web/key").read_bytes()))

    keeper = Keeper(source, signalled, 60)
    keeper.add(entries)
    assert keeper.refresh() == 0
    source.put("cert", b"c2")
    source.put("key", b"k2")
    source.put("other", b"o2")
    assert keeper.refresh() == 3
    assert signals == [("web", "SIGHUP", b"c2", b"k2"), ("second", "SIGUSR1", b"c2", b"k2")]
    assert (tmp_path / "second/key").read_bytes() == b"k2"
    assert (tmp_path / "web/other").read_bytes() == b"o2"
    assert keeper.refresh() == 0


def test_a_silent_broker_takes_nothing_away(tmp_path):
    source = Source(key=b"k1")
    keeper = Keeper(source, lambda *_: None, 60)
    keeper.add([kept(tmp_path, "key")])
    source.silent = True
    source.put("key", b"k2")
    assert keeper.refresh() == 0
    assert keeper.troubles
    assert (tmp_path / "web/key").read_bytes() == b"k1"
    source.silent = False
    assert keeper.refresh() == 1
    assert not keeper.troubles


def test_no_reader_ever_sees_half_a_value(tmp_path):
    entry = kept(tmp_path, "key")
    values = {bytes([65 + i]) * 200_000 for i in range(8)}
    write(entry, next(iter(values)))
    seen, stop = set(), threading.Event()

    def read():
        while not stop.is_set():
            seen.add(entry.path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(20):
        for value in values:
            write(entry, value)
    stop.set()
    reader.join()
    assert seen <= values


def test_modes_and_a_link_in_the_way(tmp_path):
    entry = kept(tmp_path, "key", mode="0440")
    target = tmp_path / "elsewhere"
    target.write_bytes(b"untouched")
    (tmp_path / "web/.key.new").symlink_to(target)
    entry.path.symlink_to(target)
    write(entry, b"value")
    assert stat.S_IMODE(entry.path.stat().st_mode) == 0o440
    assert not entry.path.is_symlink()
    assert target.read_bytes() == b"untouched"


def test_a_full_tmpfs_leaves_no_half_file_and_hides_no_revocation(tmp_path, monkeypatch):
    source, told, heard = Source(key=b"k1"), [], threading.Event()
    keeper = Keeper(source, lambda *_: None, 0.01, lambda refusal: (told.append(refusal), heard.set()))
    keeper.add([kept(tmp_path, "key")])

    def full(descriptor, mode):
        raise OSError(errno.ENOSPC, "full")

    source.put("key", b"k2")
    monkeypatch.setattr(os, "fchmod", full)
    keeper.start()
    while not keeper.troubles:
        time.sleep(0.005)
    assert (tmp_path / "web/key").read_bytes() == b"k1"

    def revoked(uri, known):
        raise Refused.because("release.active", expected="an active release", found="revoked", hint="")

    source.changed = revoked
    assert heard.wait(5)
    keeper.stop()
    assert [entry.name for entry in (tmp_path / "web").iterdir()] == ["key"]
    assert told[0].findings[0].rule == "release.active"


def test_a_value_that_could_not_be_written_is_tried_again(tmp_path, monkeypatch):
    source, signals = Source(key=b"k1"), []
    keeper = Keeper(source, lambda *words: signals.append(words), 60)
    keeper.add([kept(tmp_path, "key", signal="SIGHUP")])
    source.put("key", b"k2")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fchmod", lambda *_: 1 / 0)
        assert keeper.refresh() == 0
    assert signals == []
    assert keeper.refresh() == 1
    assert (tmp_path / "web/key").read_bytes() == b"k2"
    assert signals == [("web", "SIGHUP")]


# Supervision


class Shell:
    """Starts the bundle's file name as a shell command; can be told to fail."""

    def __init__(self):
        self.fail, self.started, self.deleted = 0, [], []

    def run(self, name, bundle, stdout, stderr):
        if self.fail:
            self.fail -= 1
            raise Unavailable("the runtime failed")
        process = subprocess.Popen(["/bin/sh", "-c", str(bundle)], stdout=stdout, stderr=stderr)
        process.returncode = 0  # the supervisor waits for it
        self.started.append(name)
        return process.pid

    def kill(self, name, number):
        pass

    def delete(self, name):
        self.deleted.append(name)


@pytest.fixture
def shell(monkeypatch):
    monkeypatch.setattr(supervise, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(supervise, "LONGEST_WAIT", 0.05)
    return Shell()


def task(command, name="web", **more):
    return Task(Container(name=name, image=IMAGE, **more), command)


class Events(list):
    def __call__(self, name, event, code):
        self.append((event, code))


def run(shell, *tasks):
    events, ended = Events(), threading.Event()
    supervisor = Supervisor(shell, events, None, ended.set)
    for one in tasks:
        supervisor.start(one)
    return supervisor, events, ended


@pytest.mark.parametrize(
    ("command", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143), ("kill -KILL $$", 137)]
)
def test_exit_codes(shell, command, code):
    supervisor, events, ended = run(shell, task(command))
    assert ended.wait(10)
    assert events == [("started", None), ("exited", code)]
    assert supervisor.codes() == {"web": code}
    assert shell.deleted == ["web"]


def test_never_is_never(shell):
    _, events, ended = run(shell, task("exit 1", restart="never"))
    assert ended.wait(10)
    assert ("restarting", None) not in events


def test_on_failure_stops_at_success(shell, tmp_path):
    _, events, ended = run(
        shell, task(f"echo x >> {tmp_path}/n; [ $(wc -l < {tmp_path}/n) -eq 3 ]", restart="on-failure")
    )
    assert ended.wait(10)
    assert [code for event, code in events if event == "exited"] == [1, 1, 0]


def test_always_goes_on_until_stopped(shell, tmp_path):
    supervisor, _, ended = run(shell, task(f"echo x >> {tmp_path}/n", restart="always"))
    deadline = time.monotonic() + 10
    while len(shell.started) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(shell.started) >= 4
    assert not ended.is_set()
    supervisor.stop(5)
    assert ended.wait(10)
    count = len(shell.started)
    time.sleep(0.2)
    assert len(shell.started) == count


def test_a_restart_whose_runtime_fails_is_tried_again(shell):
    supervisor, _, ended = run(shell, task("sleep 0.05; exit 1", restart="on-failure"))
    shell.fail = 3
    deadline = time.monotonic() + 10
    while len(shell.started) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(shell.started) >= 2
    supervisor.stop(5)
    assert ended.wait(10)


def test_a_machine_short_of_descriptors_is_tried_again_and_ends_in_order(shell, monkeypatch):
    supervisor, _, ended = run(shell, task("sleep 0.05; exit 1", restart="on-failure"))
    failed, real = [], os.pipe2

    def short(flags):
        if len(failed) < 2:
            failed.append(flags)
            raise OSError(errno.EMFILE, "too many")
        return real(flags)

    monkeypatch.setattr(os, "pipe2", short)
    deadline = time.monotonic() + 10
    while len(shell.started) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(failed) == 2
    assert len(shell.started) >= 2
    supervisor.stop(5)
    assert ended.wait(10)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_watcher_that_dies_is_done(shell, monkeypatch):
    monkeypatch.setattr(supervise._Watched, "_again", lambda *_: 1 / 0)
    supervisor, _, ended = run(shell, task("exit 1"))
    assert ended.wait(10)
    assert supervisor.wait(0)


def test_the_first_start_that_fails_is_told(shell):
    shell.fail = 1
    with pytest.raises(Unavailable):
        run(shell, task("true"))


def test_stop_sends_each_its_own_signal(shell, tmp_path):
    def waiting(name, trap):
        return task(
            f"trap 'echo {name} >> {tmp_path}/heard; exit 0' {trap}; echo > {tmp_path}/{name}; "
            "while :; do sleep 0.02; done",
            name,
            stop_signal=f"SIG{trap}",
            restart="always",
        )

    supervisor, _, ended = run(shell, waiting("one", "TERM"), waiting("two", "INT"))
    deadline = time.monotonic() + 10
    while not ((tmp_path / "one").exists() and (tmp_path / "two").exists()) and time.monotonic() < deadline:
        time.sleep(0.01)
    supervisor.stop(5)
    assert ended.wait(5)
    assert sorted((tmp_path / "heard").read_text().split()) == ["one", "two"]
    assert supervisor.codes() == {"one": 0, "two": 0}


def test_stop_before_anything_and_twice(shell):
    supervisor = Supervisor(shell, Events())
    supervisor.stop(1)
    supervisor.stop(1)


def test_a_signal_to_what_is_not_running_is_told(shell):
    supervisor, _, ended = run(shell, task("true"))
    assert ended.wait(10)
    for name in ("web", "other"):
        with pytest.raises(Unavailable):
            supervisor.signal(name, signal.SIGHUP)
        with pytest.raises(Unavailable):
            supervisor.execute(name, ("true",), timeout=1, limit=1)


def test_output_of_both_streams_is_kept_apart(shell):
    supervisor, _, ended = run(shell, task("echo out; echo err >&2; head -c 600000 /dev/zero; echo end"))
    assert ended.wait(10)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        found = dict(supervisor.output("web").tail(1))
        if found.get("stdout", b"").endswith(b"end\n"):
            break
        time.sleep(0.01)
    assert found["stdout"].endswith(b"end\n")
    assert supervisor.output("web").lost > 0
