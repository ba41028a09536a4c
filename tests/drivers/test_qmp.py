"""QMP over a socket pair: replies, events, errors, silence, rubbish; and a real QEMU without a machine."""

import json
import shutil
import socket
import subprocess
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casemate.drivers.qmp import MAX_LINE, Qmp
from casemate.errors import Malformed, Unavailable

GREETING = b'{"QMP": {"version": {}, "capabilities": []}}\n'


def peer(*lines: bytes):
    """A client's end whose other end greets and then answers request by request with `lines` ({id} is filled in)."""
    ours, theirs = socket.socketpair()

    def talk() -> None:
        with theirs:
            theirs.sendall(GREETING)
            stream = theirs.makefile("rb")
            for line in (b'{"return": {}, "id": {id}}\n', *lines):
                request = json.loads(stream.readline())
                theirs.sendall(line.replace(b"{id}", str(request["id"]).encode()))

    threading.Thread(target=talk, daemon=True).start()
    return ours


def test_command_and_events():
    with Qmp(peer(b'{"event": "STOP", "timestamp": {}}\n{"return": {"running": true}, "id": {id}}\n')) as qmp:
        assert qmp.execute("query-status") == {"running": True}
        assert [event["event"] for event in qmp.events] == ["STOP"]


def test_an_error_of_qemu():
    with Qmp(peer(b'{"error": {"class": "GenericError", "desc": "no such device"}, "id": {id}}\n')) as qmp:
        with pytest.raises(Unavailable, match="device_del failed: no such device"):
            qmp.execute("device_del", {"id": "x"})


def test_a_reply_to_somebody_else_is_skipped_and_the_end_is_told():
    with Qmp(peer(b'{"return": 1, "id": 999}\n')) as qmp, pytest.raises(Unavailable, match="closed"):
        qmp.execute("query-status")


def test_silence_has_an_end():
    ours, theirs = socket.socketpair()
    theirs.sendall(GREETING)
    with theirs, pytest.raises(Unavailable, match="in time"):
        Qmp(ours, timeout=0.05)


@pytest.mark.parametrize(
    ("line", "error"),
    [(b"{}\n", Malformed), (b"hello\n", Malformed), (b"[1]\n", Malformed), (b"x" * (MAX_LINE + 70000), Malformed)],
)
def test_no_greeting(line, error):
    ours, theirs = socket.socketpair()
    with theirs:
        threading.Thread(target=lambda: theirs.sendall(line), daemon=True).start()
        with pytest.raises(error):
            Qmp(ours, timeout=2)
        ours.close()


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_rubbish_raises_only_our_errors(data):
    ours, theirs = socket.socketpair()
    theirs.sendall(GREETING + data + b"\n")
    theirs.close()
    with pytest.raises((Malformed, Unavailable)):
        Qmp(ours, timeout=1)
    ours.close()


def test_nobody_listens(tmp_path):
    with pytest.raises(Unavailable):
        Qmp.connect(str(tmp_path / "qmp.sock"))


@pytest.mark.tools
def test_a_real_qemu(tmp_path):
    program = shutil.which("qemu-system-x86_64")
    if program is None:
        pytest.skip("qemu-system-x86_64 is not installed; make setup installs it")
    path = tmp_path / "q"
    process = subprocess.Popen(
        [program, "-M", "none", "-nodefaults", "-display", "none", "-qmp", f"unix:{path},server=on,wait=off"]
    )
    try:
        while not path.exists():
            assert process.poll() is None
            time.sleep(0.01)
        with Qmp.connect(str(path)) as qmp:
            assert qmp.execute("query-version")["qemu"]["major"] >= 7
            qmp.execute("quit")
        assert process.wait(5) == 0
    finally:
        process.kill()
