"""The control channel's reader: whole messages come out in order, garbage is skipped, memory stays bounded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.errors import Malformed
from casemate.wire import frames

MESSAGE = st.dictionaries(st.text(max_size=5), st.integers(0, 99) | st.text(max_size=20), max_size=3)


@given(st.lists(MESSAGE, max_size=5), st.integers(1, 7))
def test_any_chunking_gives_the_same_messages(messages, size):
    stream = b"".join(map(frames.pack, messages))
    reader = frames.FrameReader()
    found = [m for i in range(0, len(stream), size) for m in reader.feed(stream[i : i + size])]
    assert found == messages
    assert reader.dropped == 0


@given(st.binary(max_size=300))
def test_garbage_before_a_frame_is_skipped(garbage):
    reader = frames.FrameReader()
    list(reader.feed(garbage))
    wanted = {"type": "hello"}
    # Half a frame in the garbage may swallow the next one: the one after it must come through.
    rest = [m for _ in range(2) for m in reader.feed(frames.pack(wanted) + bytes(frames.MAX_FRAME + 16))]
    rest += list(reader.feed(frames.pack(wanted)))
    assert wanted in rest


def test_a_huge_length_is_not_waited_for():
    reader = frames.FrameReader()
    bad = frames.MARKER + (frames.MAX_FRAME + 1).to_bytes(4, "big")
    assert list(reader.feed(bad + frames.pack({"a": 1}))) == [{"a": 1}]


def test_too_large_a_message_is_refused():
    with pytest.raises(Malformed):
        frames.pack({"a": "x" * frames.MAX_FRAME})


def test_memory_stays_bounded():
    reader = frames.FrameReader()
    for _ in range(64):
        list(reader.feed(b"x" * 65536))
    assert len(reader._buffer) < frames.HEADER
