"""The Nitro Security Module's device, stood in for at the boundary of the ioctl: the same bytes as the kernel's."""

import ctypes
import errno

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casemate.errors import Malformed, Unavailable, Unusable
from casemate.schema.request import Request
from casemate.tee import nitro
from casemate.tee.nitro.collect import IOCTL_RAW, MAX_RESPONSE, RAW, answered, asked, exchange, present
from casemate.testing.nitro import FakeEnclave
from casemate.wire import cbor

NONCE = b"n" * 48


def module(enclave: FakeEnclave, seen: list[bytes] | None = None, *, indefinite: bool = False):
    """The driver (drivers/misc/nsm.c): reads the question, writes the answer, sets its length."""

    def ioctl(handle: int, number: int, message: bytearray) -> int:
        assert handle > 2
        assert number == 0xC0200A00  # _IOWR(0x0A, 0, 32 bytes)
        at, size, out, room = (int.from_bytes(message[i : i + 8], "little") for i in (0, 8, 16, 24))
        assert room == 0x3000
        question = ctypes.string_at(at, size)
        if seen is not None:
            seen.append(question)
        fields = cbor.loads(question)["Attestation"]
        answer = cbor.dumps({"Attestation": {"document": enclave.document(fields["nonce"])}})
        if indefinite:
            answer = b"\xbf" + answer[1:] + b"\xff"
        ctypes.memmove(out, answer, len(answer))
        message[24:32] = len(answer).to_bytes(8, "little")
        return 0

    return ioctl


@pytest.mark.parametrize("indefinite", [False, True])
def test_a_document_is_collected_and_verified(tmp_path, indefinite):
    device, enclave = tmp_path / "nsm", FakeEnclave()
    device.touch()
    assert present(device=device)
    seen = []
    request = Request(report_data=NONCE)
    evidence = nitro.collect(request, device=device, ioctl=module(enclave, seen, indefinite=indefinite))
    claims = nitro.verify(evidence, enclave.endorsements, request, enclave.now)
    assert claims.fresh
    assert claims.report_data == NONCE.hex()
    assert seen == [asked(NONCE)]


def test_golden_bytes():
    assert asked(b"\1\2") == (
        b"\xa1\x6bAttestation\xa3\x65nonce\x42\x01\x02\x69user_data\xf6\x6apublic_key\xf6"
    )  # fmt: skip
    assert asked(None).count(b"\xf6") == 3
    assert IOCTL_RAW == 0xC0200A00
    assert RAW.pack(1, 2, 3, 4).hex() == "0100000000000000020000000000000003000000000000000400000000000000"


def test_without_a_nonce_the_time_counts(tmp_path):
    device, enclave = tmp_path / "nsm", FakeEnclave()
    device.touch()
    evidence = nitro.collect(Request(), device=device, ioctl=module(enclave))
    assert not nitro.verify(evidence, enclave.endorsements, Request(), enclave.now).fresh


def test_elsewhere(tmp_path):
    device = tmp_path / "nsm"
    assert not present(device=device)
    with pytest.raises(Unusable, match="no Nitro enclave"):
        nitro.collect(Request(), device=device)
    device.touch()
    with pytest.raises(Unavailable):
        nitro.collect(Request(), device=device)  # a file is no driver
    for nonce in (b"", b"n" * 513):
        with pytest.raises(Unusable):
            nitro.collect(Request(report_data=nonce), device=device)
    with pytest.raises(Unusable):
        exchange(bytes(0x1001), device)


def test_errors_of_driver_and_module(tmp_path):
    device = tmp_path / "nsm"
    device.touch()

    def interrupted(_handle, _number, _message):
        raise OSError(errno.EINTR, "Interrupted system call")

    with pytest.raises(Unavailable, match="Interrupted"):
        nitro.collect(Request(), device=device, ioctl=interrupted)

    def boastful(_handle, _number, message):
        message[24:32] = (MAX_RESPONSE + 1).to_bytes(8, "little")
        return 0

    with pytest.raises(Malformed, match="at most"):
        nitro.collect(Request(), device=device, ioctl=boastful)
    with pytest.raises(Unavailable, match="InvalidArgument"):
        answered(cbor.dumps({"Error": "InvalidArgument"}))


@pytest.mark.parametrize("answer", [
    1, [], {}, {"Attestation": 1}, {"Attestation": {}}, {"Error": 1}, {"Attestation": {"document": "text"}},
    {"Attestation": {"document": b""}},
])  # fmt: skip
def test_malformed_answers(answer):
    with pytest.raises(Malformed):
        answered(cbor.dumps(answer))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_fuzz_answers(data):
    try:
        answered(data)
    except (Malformed, Unavailable):
        pass
