"""What the guest says: entered when it is of the known shape, bounded always, harmless in any case."""

import base64
import socket

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casemate.errors import Unavailable
from casemate.host import control
from casemate.host.state import State, as_text
from casemate.wire import frames

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
TYPES = st.sampled_from(["hello", "phase", "state", "container", "log", "reply", "unknown"])
FIELDS = st.sampled_from(
    ["agent", "name", "t", "detail", "state", "findings", "message", "event", "code", "container", "stream", "data"]
)
WORDS = st.sampled_from(["one", "agent", "running", "refused", "started", "stdout", "restarting"])


def fresh(state="starting"):
    return State(id="i", name="n", state=state, containers=control.expect(["one"]))


@settings(max_examples=400, deadline=None)
@given(TYPES, st.dictionaries(FIELDS, JSON | WORDS, max_size=8))
def test_any_message_is_harmless(kind, fields):
    state = fresh()
    control.apply(state, {"type": kind, **fields}, 1.0)
    control.log_line({"type": kind, **fields}, frozenset({"one"}))
    assert len(msgspec.json.encode(state)) < 300_000
    assert msgspec.json.decode(msgspec.json.encode(state), type=State) == state
    assert state.state in {"starting", *control.GUEST_STATES}
    assert set(state.containers) == {"one"}


def test_many_phases_and_findings_are_bounded():
    state = fresh()
    for number in range(500):
        control.apply(state, {"type": "phase", "name": "pull", "t": number, "detail": {"a" * 999: "b" * 9999}}, 1.0)
    assert len(state.phases) == control.MAX_PHASES
    findings = [{"rule": "r" * 99999}] * 5000
    control.apply(state, {"type": "state", "state": "failed", "findings": findings, "message": "m" * 10**6}, 1.0)
    assert len(state.findings) == control.MAX_FINDINGS
    assert len(state.message) == control.MAX_TEXT
    assert len(msgspec.json.encode(state)) < 400_000


@pytest.mark.parametrize("t", [None, "5", True, [], {}])
def test_a_phase_without_a_time_is_dropped(t):
    assert not control.apply(fresh(), {"type": "phase", "name": "agent", "t": t}, 1.0)


@pytest.mark.parametrize("t", [-1, 1e300, float("inf"), float("nan")])
def test_odd_times_are_clipped(t):
    state = fresh()
    control.apply(state, {"type": "phase", "name": "agent", "t": t}, 1.0)
    assert 0 <= state.phases[0].t <= 1e9


@pytest.mark.parametrize("end", ["stopped", "refused", "failed"])
def test_the_first_end_counts(end):
    state = fresh(end)
    for said in ("running", "stopped", "failed"):
        assert not control.apply(state, {"type": "state", "state": said}, 1.0)
    assert state.state == end


def test_stopping_is_not_undone():
    state = fresh("stopping")
    assert not control.apply(state, {"type": "state", "state": "running"}, 1.0)
    assert control.apply(state, {"type": "state", "state": "stopped"}, 1.0)


def test_containers_of_the_manifest_only():
    state = fresh()
    assert not control.apply(state, {"type": "container", "name": "two", "event": "started"}, 1.0)
    control.apply(state, {"type": "container", "name": "one", "event": "restarting", "code": 7}, 1.0)
    control.apply(state, {"type": "container", "name": "one", "event": "exited", "code": 2**40}, 1.0)
    assert (state.containers["one"].restarts, state.containers["one"].code) == (1, None)


def test_terminal_codes_are_taken_out():
    assert as_text("a\x1b[2J\u202eb\n\x9bc", 100) == "a\ufffd[2J\ufffdb\ufffd\ufffdc"


def test_log_lines():
    names, data = frozenset({"one"}), base64.b64encode(b"x").decode()
    good = {"container": "one", "stream": "stdout", "data": data}
    assert control.log_line(good, names) == good
    for wrong in ({"container": "two"}, {"stream": "stdin"}, {"data": "%"}, {"data": 5}, {"container": None}):
        assert control.log_line({**good, **wrong}, names) is None
    big = base64.b64encode(bytes(control.MAX_LOG_BYTES + 1)).decode()
    assert control.log_line({**good, "data": big}, names) is None


def test_channel_carries_and_counts():
    ours, theirs = socket.socketpair()
    channel = control.Channel(ours)
    assert list(channel.receive()) == []
    theirs.sendall(b"noise" + frames.pack({"type": "hello"}) + b"more noise")
    assert list(channel.receive()) == [{"type": "hello"}]
    assert channel.dropped > 0
    channel.send({"type": "stop", "grace": 1})
    assert frames.FrameReader().feed(theirs.recv(1000)).__next__()["type"] == "stop"
    theirs.close()
    with pytest.raises(Unavailable, match="closed"):
        list(channel.receive())


def test_a_guest_that_does_not_read_costs_at_most_one_mebibyte():
    ours, theirs = socket.socketpair()
    channel = control.Channel(ours)
    message = {"type": "exec", "data": "x" * 100_000}
    with theirs, pytest.raises(Unavailable, match="does not read"):
        list(map(channel.send, [message] * 100))
    assert channel.waiting
    ours.close()
