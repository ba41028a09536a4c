"""Layouts, commands and collection, against scripted and hostile transports; nothing but our own errors comes out."""

from __future__ import annotations

import contextlib
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.errors import CasemateError, Malformed, Unavailable, Unusable
from casemate.schema.request import Request
from casemate.tee.tpm import collect, report
from casemate.tee.tpm.collect import Device, split_certificates
from casemate.tee.tpm.wire import Tpm, TpmRefusal, make_credential
from casemate.testing.tpm import FakeTpm
from casemate.wire.encoding import unb64

REQUEST = Request(report_data=b"r" * 48)
QUOTE = FakeTpm().collect(REQUEST).primary["tpm_quote"]
ATTEST, SIGNATURE = unb64(QUOTE["message"]), unb64(QUOTE["signature"])
PUBLIC = report.ak_public(b"x" * 32, b"y" * 32)


class Script:
    """Answers with given responses, then with nothing."""

    def __init__(self, *responses: bytes) -> None:
        self.responses, self.commands = list(responses), []

    def transmit(self, command: bytes) -> bytes:
        self.commands.append(command)
        return self.responses.pop(0) if self.responses else b""


def answer(code: int, body: bytes = b"", tag: int = 0x8001) -> bytes:
    return tag.to_bytes(2, "big") + (10 + len(body)).to_bytes(4, "big") + code.to_bytes(4, "big") + body


def test_a_quote_is_read() -> None:
    attest = report.parse_attest(ATTEST)
    assert attest.extra_data == b"r" * 32
    assert attest.selections == (("sha256", tuple(range(24))),)
    signature = report.parse_signature(SIGNATURE)
    assert (signature.scheme, signature.hash) == (report.ALG_ECDSA, "sha256")


def test_the_ak_template_reads_back() -> None:
    public = report.parse_public(PUBLIC)
    assert (public.type, public.attributes, public.detail) == (report.ALG_ECC, 0x00050472, report.CURVE_P256)
    assert report.name(PUBLIC) == b"\x00\x0b" + hashlib.sha256(PUBLIC).digest()


@pytest.mark.parametrize("data", [ATTEST, SIGNATURE, PUBLIC])
def test_every_truncation_is_malformed(data: bytes) -> None:
    parse = {ATTEST: report.parse_attest, SIGNATURE: report.parse_signature, PUBLIC: report.parse_public}[data]
    for end in range(len(data)):
        with pytest.raises(Malformed):
            parse(data[:end])
    with pytest.raises(Malformed, match="left over"):
        parse(data + b"\0")


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    for parse in (report.parse_attest, report.parse_signature, report.parse_public, split_certificates):
        _only_ours(lambda parse=parse: parse(data))


@given(st.data())
def test_any_change_of_good_structures(data: st.DataObject) -> None:
    for good, parse in ((ATTEST, report.parse_attest), (SIGNATURE, report.parse_signature), (PUBLIC, report.name)):
        changed = bytearray(good)
        changed[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
        _only_ours(lambda parse=parse, changed=changed: parse(bytes(changed)))


@given(st.dictionaries(st.sampled_from(["tpm_quote", "ak_public", "ak_chain", "event_log"]), st.text() | st.none()))
def test_any_json(primary: dict[str, object]) -> None:
    with pytest.raises(Malformed):
        report.parse_evidence(primary)


def test_retry_is_retried_and_other_errors_are_told() -> None:
    script = Script(answer(0x922), answer(0x922), answer(0))
    Tpm(script).startup()
    assert len(script.commands) == 3
    with pytest.raises(TpmRefusal, match="0x18b") as refusal:
        Tpm(Script(answer(0x18B))).read_public(1)
    assert refusal.value.code == 0x18B
    with pytest.raises(TpmRefusal, match="0x922"):
        Tpm(Script(*[answer(0x922)] * 20)).startup()


def test_startup_of_a_started_tpm_is_fine() -> None:
    Tpm(Script(answer(0x100))).startup()
    with pytest.raises(TpmRefusal):
        Tpm(Script(answer(0x101))).startup()


@pytest.mark.parametrize(
    "response",
    [b"", b"\x80\x01", answer(0)[:-1], answer(0) + b"\0", b"\x80\x01" + bytes(5000), answer(0, bytes(3))],
)
def test_hostile_responses_are_malformed(response: bytes) -> None:
    with pytest.raises(Malformed):
        Tpm(Script(response)).read_public(1)


@given(st.lists(st.binary(max_size=64), max_size=6))
def test_any_tpm_behaviour(bodies: list[bytes]) -> None:
    def run() -> None:
        collect(REQUEST, transport=Script(*[answer(0, body, 0x8002) for body in bodies]), event_log=b"log")

    _only_ours(run)


def test_pcrs_are_read_eight_to_a_call() -> None:
    eight = bytes(4) + report.selection(range(8)) + (8).to_bytes(4, "big") + report.sized(b"p" * 32) * 8
    script = Script(*[answer(0, eight)] * 3)
    assert Tpm(script).read_pcrs() == [b"p" * 32] * 24
    none = bytes(8) + bytes(4)
    with pytest.raises(Malformed, match="active"):
        Tpm(Script(answer(0, none))).read_pcrs()


def test_short_report_data_is_never_padded() -> None:
    chain = b"\x30\x82\x00\x01x"
    with pytest.raises(Unusable, match="32 bytes"):
        collect(Request(report_data=b"short"), transport=_NvTpm(chain), event_log=b"")


def test_a_tpm_without_certificate_is_unusable() -> None:
    with pytest.raises(Unusable, match="0x1c10002"):
        collect(REQUEST, transport=Script(answer(0x18B)), event_log=b"")


def test_a_machine_without_tpm_is_unusable() -> None:
    with pytest.raises(Unusable, match="no-such-device"):
        Device("/dev/no-such-device")


def test_registers_that_keep_moving_are_unavailable() -> None:
    moving = _NvTpm(unb64(FakeTpm().collect(REQUEST).primary["ak_chain"][0]))
    with pytest.raises(Unavailable, match="keep changing"):
        collect(REQUEST, transport=moving, event_log=b"")


class _NvTpm:
    """A TPM with a certificate and a quote, whose PCRs are never those of the quote."""

    def __init__(self, chain: bytes) -> None:
        self.chain = chain

    def transmit(self, command: bytes) -> bytes:
        code = int.from_bytes(command[6:10], "big")
        if code == 0x169:
            return answer(0, report.sized(bytes(10) + report.sized(b"") + len(self.chain).to_bytes(2, "big")) + b"\0\0")
        if code == 0x14E:
            return _parameters(report.sized(self.chain))
        if code == 0x158:
            return _parameters(report.sized(ATTEST) + SIGNATURE)
        eight = bytes(4) + report.selection(range(8)) + (8).to_bytes(4, "big") + report.sized(b"p" * 32) * 8
        return answer(0, eight)


def _parameters(body: bytes) -> bytes:
    return answer(0, len(body).to_bytes(4, "big") + body + bytes(5), 0x8002)


def test_certificates_one_behind_the_other() -> None:
    one, two = b"\x30\x82\x00\x03abc", b"\x30\x82\x00\x01x"
    assert split_certificates(one + two) == [one, two]
    for bad in (b"", one + b"\0", one * 6, two[:-1], b"\x31\x82\x00\x00"):
        with pytest.raises(Malformed):
            split_certificates(bad)


def test_credentials_are_made_anew_each_time() -> None:
    from cryptography.hazmat.primitives.asymmetric import rsa

    modulus = rsa.generate_private_key(65537, 2048).public_key().public_numbers().n.to_bytes(256, "big")
    made = {make_credential(modulus, 65537, b"\x00\x0b" + bytes(32), b"s" * 32)[0] for _ in range(3)}
    assert len(made) == 3


def _only_ours(action: object) -> None:
    with contextlib.suppress(CasemateError):
        action()
