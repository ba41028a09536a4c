"""Files that grow: cut in time, private, readable whatever a guest wrote into them."""

from hypothesis import given
from hypothesis import strategies as st

from casemate.cli import logview
from casemate.host import keeping
from casemate.wire.encoding import b64


def record(text, container="one"):
    return {"container": container, "stream": "stdout", "data": b64(text)}


def test_a_long_console_is_cut_to_its_tail(tmp_path):
    path = tmp_path / "console.log"
    with path.open("ab") as writer:  # QEMU's handle stays open while we cut
        writer.write(b"x" * 3000 + b"\n" + b"last before\n")
        writer.flush()
        keeping.trim(path, limit=1000)
        writer.write(b"first after\n")
    assert path.stat().st_size < 66_000
    assert keeping.last_lines(path, 2) == ["last before", "first after"]
    assert path.read_bytes().startswith(b"[earlier lines were dropped]")


def test_a_short_or_missing_console_stays(tmp_path):
    path = tmp_path / "console.log"
    keeping.trim(path)
    assert keeping.last_lines(path) == []
    path.write_bytes(b"one\r\n\r\ntwo\n")
    keeping.trim(path)
    assert keeping.last_lines(path) == ["one", "two"]


@given(st.binary(max_size=3000))
def test_last_lines_are_printable(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "console.log"
    path.write_bytes(data)
    lines = keeping.last_lines(path)
    assert len(lines) <= keeping.LAST_LINES
    assert all(len(line) <= 300 and line.isprintable() for line in lines)


def test_terminal_codes_of_the_firmware_go(tmp_path):
    path = tmp_path / "console.log"
    path.write_bytes(b"\x1b[2J\x1b[01;01H\x1b[=3hLinux version 6\n")
    assert keeping.last_lines(path) == ["Linux version 6"]


def test_logs_are_private_and_turn_over(tmp_path, monkeypatch):
    monkeypatch.setattr(keeping, "MAX_LOG", 1000)
    for number in range(30):
        keeping.append_log(tmp_path, {"time": 0, **record(f"line {number}\n".encode())})
    log, old = tmp_path / keeping.LOG, tmp_path / (keeping.LOG + ".old")
    assert old.stat().st_size < 1200
    assert old.stat().st_mode & 0o77 == 0
    assert not log.exists() or log.stat().st_size < 1200


def test_the_last_lines_of_many_records():
    records = [record(b"a\nb\n"), record(b"c"), record(b"d\ne\n")]
    assert logview._tail(records, None) == records
    assert logview._tail(records, 0) == []
    assert logview._tail(records, 1) == records[2:]
    assert logview._tail(records, 3) == records[1:]
    assert logview._tail(records, 99) == records
    assert logview._tail([], 5) == []
