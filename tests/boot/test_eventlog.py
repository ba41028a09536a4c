"""The event log parser: genuine logs, odd logs, and anything at all."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.boot import eventlog, logfacts
from casemate.errors import Malformed
from casemate.testing import eventlog as writer
from casemate.testing import published

EVIDENCE = published.folder("eventlog")
needs_evidence = pytest.mark.skipif(EVIDENCE is None, reason="the published evidence set is not on this machine")
LOGS = ["arch-linux-workstation", "gcp-debian10-sha1", "gcp-rhel8-uefi", "gcp-ubuntu2404-sevsnp"]


def catalogue() -> list[dict[str, Any]]:
    """The samples of the evidence set's catalogue."""
    return json.loads((EVIDENCE.parent / "index.json").read_text())["samples"]


def direct() -> bytes:
    return writer.write(writer.direct_boot(b"fw", b"kernel", "quiet", b"initrd"))


@needs_evidence
@pytest.mark.parametrize("name", LOGS)
def test_genuine_logs_replay_to_their_registers(name: str) -> None:
    log = eventlog.parse((EVIDENCE / name / "eventlog.bin").read_bytes())
    facts = next(s["facts"] for s in catalogue() if s["id"] == f"eventlog/{name}")
    assert len(log.events) == facts["events"]
    banks = json.loads((EVIDENCE / name / "pcrs.json").read_text())
    assert banks.keys() & set(log.algorithms), "no bank to compare"
    for bank, registers in banks.items():
        if bank not in log.algorithms:
            continue
        replayed = eventlog.replay(log, bank, eventlog.tpm_initial(bank, log.locality))
        for index, value in registers.items():
            assert replayed[int(index)].hex() == value, f"{bank} PCR {index}"


@needs_evidence
def test_unlogged_events_do_not_replay() -> None:
    folder = EVIDENCE / "ebs-events-missing"
    log = eventlog.parse((folder / "eventlog.bin").read_bytes())
    wanted = json.loads((folder / "pcrs.json").read_text())["sha1"]["5"]
    value = eventlog.replay(log, "sha1")[5]
    assert value.hex() != wanted
    assert eventlog.after_unlogged_exit(log, "sha1", value).hex() == wanted


def test_an_end_of_the_boot_services_that_was_logged_explains_nothing() -> None:
    exits = [writer.over_data(5, eventlog.EV_EFI_ACTION, b"Exit Boot Services Invocation")]
    assert eventlog.after_unlogged_exit(eventlog.parse(writer.write(exits)), "sha256", bytes(32)) is None
    first = hashlib.sha256(bytes(32) + hashlib.sha256(b"Exit Boot Services Invocation").digest()).digest()
    both = hashlib.sha256(first + hashlib.sha256(b"Exit Boot Services Returned with Success").digest()).digest()
    assert eventlog.after_unlogged_exit(eventlog.parse(direct()), "sha256", bytes(32)) == both


@needs_evidence
def test_ccel_uses_the_same_format() -> None:
    folder = EVIDENCE / "ccel-alibaba-aael"
    log = eventlog.parse((folder / "ccel.bin").read_bytes(), padded=True)
    assert len(log.events) == 88
    facts = next(s["facts"] for s in catalogue() if s["id"] == "eventlog/ccel-alibaba-aael")
    values = {f"rtmr{register - 1}": value.hex() for register, value in eventlog.replay(log, "sha384").items()}
    assert len(log.events) == facts["events"]
    assert values == facts["replayed"]
    expected = json.loads((folder / "expected.json").read_text())["uefi_event_logs"]
    digests = [e["digests"][0]["digest"] for e in expected]
    assert [e.digests["sha384"].hex() for e in log.events if e.type != eventlog.EV_NO_ACTION] == digests


@needs_evidence
def test_padded_areas_of_tdx_guests_are_read_to_their_end() -> None:
    found = [p for p in published.folder("tdx").glob("*/ccel*.bin") if "table" not in p.name]
    assert found
    for path in found:
        assert eventlog.parse(path.read_bytes(), padded=True).algorithms == ("sha384",)
        with pytest.raises(Malformed):
            eventlog.parse(path.read_bytes())


@needs_evidence
def test_odd_logs() -> None:
    folder = EVIDENCE / "odd-logs"
    with pytest.raises(Malformed):
        eventlog.parse((folder / "bogus.bin").read_bytes())
    short = eventlog.parse((folder / "short_no_action.bin").read_bytes())
    assert (len(short.events), short.algorithms, short.locality) == (1, ("sha1",), 3)
    action = eventlog.parse((folder / "event-uefiaction.bin").read_bytes())
    assert len(action.events) == 2
    assert action.events[1].data_matches("sha256")


@needs_evidence
def test_secure_boot_is_read_where_the_digest_covers_it() -> None:
    log = eventlog.parse((EVIDENCE / "gcp-ubuntu2404-sevsnp" / "eventlog.bin").read_bytes())
    assert logfacts.facts(log, "sha256")["secure_boot"] in (True, False)


def test_what_is_written_is_read_back() -> None:
    log = eventlog.parse(direct())
    assert log.algorithms == ("sha256",)
    assert len(log.events) == 14
    facts = logfacts.facts(log, "sha256")
    assert facts["initrd"] == [hashlib.sha256(b"initrd").hexdigest()]
    assert facts["load_options"] == [hashlib.sha256("quiet initrd=initrd\0".encode("utf-16-le")).hexdigest()]
    assert facts["secure_boot"] is None


def test_no_action_is_not_extended_and_others_are() -> None:
    log = eventlog.parse(direct())
    replayed = eventlog.replay(log, "sha256", eventlog.tpm_initial("sha256"))
    assert replayed[15] == bytes(32)
    assert replayed[17] == b"\xff" * 32
    assert replayed[0] != bytes(32)


def test_startup_locality_decides_the_first_value_of_pcr_0() -> None:
    notice = writer.LoggedEvent(0, eventlog.EV_NO_ACTION, bytes(32), b"StartupLocality\0\x03")
    log = eventlog.parse(writer.write([notice]))
    assert eventlog.tpm_initial("sha256", log.locality)[0] == bytes(31) + b"\x03"
    with pytest.raises(Malformed, match="doubled"):
        eventlog.parse(writer.write([notice, notice]))
    with pytest.raises(Malformed, match="locality"):
        eventlog.parse(writer.write([notice._replace(data=b"StartupLocality\0\x07")]))


@pytest.mark.parametrize("end", range(1, len(direct()), 7))
def test_a_cut_log_is_malformed_or_shorter(end: int) -> None:
    try:
        log = eventlog.parse(direct()[:end])
    except Malformed:
        return
    assert len(log.events) < 14  # the cut fell between two events


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d + bytes(3), "wanted"),
        (lambda d: d[:56] + (9).to_bytes(4, "little") + d[60:], "algorithms"),
        (lambda d: d[:65] + d[65:].replace(b"\x01\0\0\0\x0b\0", b"\x02\0\0\0\x0b\0", 1), "digests"),
        (lambda d: bytes(1 << 20) + d, "at most"),
    ],
)
def test_named_defects(change: object, message: str) -> None:
    with pytest.raises(Malformed, match=message):
        eventlog.parse(change(direct()))


def test_registers_beyond_any_device_are_malformed() -> None:
    with pytest.raises(Malformed, match="register 32"):
        eventlog.parse(writer.write([writer.over_data(32, eventlog.EV_SEPARATOR, b"")]))


def test_a_log_without_the_bank_cannot_be_replayed() -> None:
    with pytest.raises(Malformed, match="sha384"):
        eventlog.replay(eventlog.parse(direct()), "sha384")


def test_data_is_believed_only_under_its_digest() -> None:
    forged = writer.LoggedEvent(7, eventlog.EV_EFI_VARIABLE_DRIVER_CONFIG, bytes(32), _secure_boot(b"\x01"))
    genuine = writer.over_data(7, eventlog.EV_EFI_VARIABLE_DRIVER_CONFIG, _secure_boot(b"\x00"))
    assert logfacts.facts(eventlog.parse(writer.write([forged])), "sha256")["secure_boot"] is None
    assert logfacts.facts(eventlog.parse(writer.write([genuine])), "sha256")["secure_boot"] is False


def _secure_boot(value: bytes) -> bytes:
    name = "SecureBoot".encode("utf-16-le")
    guid = bytes.fromhex("61dfe48bca93d211aa0d00e098032b8c")
    return guid + (len(name) // 2).to_bytes(8, "little") + len(value).to_bytes(8, "little") + name + value


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes(data: bytes, padded: bool) -> None:
    _only_malformed(data, padded)


@given(st.data())
def test_any_change_of_a_good_log(data: st.DataObject) -> None:
    log = bytearray(direct())
    for _ in range(data.draw(st.integers(1, 4))):
        log[data.draw(st.integers(0, len(log) - 1))] = data.draw(st.integers(0, 255))
    _only_malformed(bytes(log), False)


def _only_malformed(data: bytes, padded: bool) -> None:
    try:
        log = eventlog.parse(data, padded=padded)
        for bank in log.algorithms:
            eventlog.replay(log, bank)
        logfacts.facts(log, "sha256")
    except Malformed:
        pass


@needs_evidence
def test_every_sample_of_the_catalogue_has_a_test_here() -> None:
    named = {s["id"].partition("/")[2] for s in catalogue() if s["tee"] == "eventlog"}
    assert named == {*LOGS, "ccel-alibaba-aael", "ebs-events-missing", "odd-logs"}
