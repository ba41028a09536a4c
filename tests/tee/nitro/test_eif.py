"""Enclave images: parsed, measured, their signatures judged; every byte of one changed; fuzzing."""

import dataclasses
import hashlib
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casemate.errors import Malformed, Refused, Unusable
from casemate.schema.launch import Launch
from casemate.tee import nitro
from casemate.tee.nitro import eif as wire
from casemate.tee.nitro.measure import eif, extended
from casemate.testing import pki
from casemate.testing.eif import HEADER, FakeImage, assemble
from casemate.wire import cbor


def pcr(*parts: bytes) -> str:
    """The format's rule, written down anew."""
    return hashlib.sha384(bytes(48) + hashlib.sha384(b"".join(parts)).digest()).hexdigest()


IMAGE = FakeImage()
PCR0 = bytes.fromhex(pcr(IMAGE.kernel, IMAGE.cmdline, *IMAGE.ramdisks))
SIGNED = IMAGE.signed(PCR0)


def test_registers_of_an_image():
    found = eif(IMAGE.build())
    assert found.tee == "nitro"
    assert found.values == {
        "pcr0": PCR0.hex(),
        "pcr1": pcr(IMAGE.kernel, IMAGE.cmdline, IMAGE.ramdisks[0]),
        "pcr2": pcr(IMAGE.ramdisks[1]),
    }
    assert nitro.measure(Launch(image=IMAGE.build())) == found
    with pytest.raises(Unusable):
        nitro.measure(Launch(kernel=b"kernel"))


def test_an_image_of_one_ramdisk_has_the_published_pcr_2():
    """Every image whose application lies in its first ramdisk shows this value; many projects publish it."""
    one = FakeImage(ramdisks=(b"all of it",))
    found = eif(one.build()).values
    assert found["pcr2"] == (
        "21b9efbc184807662e966d34f390821309eeac6802309798826296bf3e8bec7c10edb30948c90ba67310f7b964fc500a"
    )
    assert found["pcr0"] == found["pcr1"]


def test_the_header_is_548_bytes_as_in_the_format():
    assert HEADER.size + 4 == wire.HEADER == 548
    assert IMAGE.build()[:8] == b".eif\0\4\0\0"


@pytest.mark.parametrize("version", [2, 3, 4])
def test_versions_and_architectures(version):
    image = FakeImage(version=version, flags=1)
    parsed = wire.parse(image.build())
    assert (parsed.version, parsed.architecture) == (version, "arm64")
    assert bool(parsed.metadata) == (version == 4)
    assert eif(image.build()).values["pcr0"] == PCR0.hex()


def test_metadata_and_flags_are_not_measured():
    """Trap 24: what differs between two builds of the same files is in the metadata, which no PCR covers."""
    other = dataclasses.replace(IMAGE, metadata=b'{"BuildTime":"2026-01-01"}')
    assert eif(other.build()) == eif(IMAGE.build())


def test_trap_24_a_changed_ramdisk_changes_the_registers():
    other = dataclasses.replace(IMAGE, ramdisks=(IMAGE.ramdisks[0], b"the second, with another time in it"))
    before, after = eif(IMAGE.build()).values, eif(other.build()).values
    assert {name for name in before if before[name] != after[name]} == {"pcr0", "pcr2"}


def test_pcr_8_is_the_signers_certificate():
    found = eif(SIGNED.build()).values
    assert found["pcr0"] == PCR0.hex()
    from casemate.crypto import pem

    assert found["pcr8"] == extended(pem.certificates(SIGNED.certificate)).hex()


@pytest.mark.parametrize(
    "image",
    [
        IMAGE.signed(b"\1" * 48),
        IMAGE.signed(PCR0[:47]),
        IMAGE.signed(PCR0, index=1),
        IMAGE.signed(PCR0, flip=True),
        IMAGE.signed(PCR0, key=pki.p384()),
        IMAGE.signed(PCR0, key=pki.p256()),
        dataclasses.replace(SIGNED, kernel=b"another kernel"),
        dataclasses.replace(SIGNED, certificate=pki.pem(pki.Authority("Somebody else").certificate)),
        dataclasses.replace(SIGNED, certificate=pki.pem(pki.Authority("RSA", key=pki.rsa2048()).certificate)),
    ],
)
def test_a_signature_that_does_not_hold(image):
    with pytest.raises(Refused) as caught:
        eif(image.build())
    assert [f.rule for f in caught.value.findings] == ["nitro.eif.signature"]


def section(value) -> bytes:
    return assemble([*IMAGE.sections(), (4, cbor.dumps(value))])


@pytest.mark.parametrize("value", [
    1, [], [1], [{}], [{"signing_certificate": [256], "signature": [1]}], [{"signing_certificate": [1]}],
    [{"signing_certificate": [True], "signature": [1]}], [{"signing_certificate": b"x", "signature": b"y"}],
    [{"signing_certificate": list(SIGNED.certificate), "signature": list(SIGNED.message)}] * 2,
    [{"signing_certificate": list(SIGNED.certificate), "signature": [1, 2]}],
    [{"signing_certificate": list(SIGNED.certificate * 2), "signature": list(SIGNED.message)}],
])  # fmt: skip
def test_a_malformed_signature_section(value):
    with pytest.raises(Malformed):
        eif(section(value))


@pytest.mark.parametrize("payload", [1, {}, {"register_index": 0}, {"register_index": "0", "register_value": [1]},
                                     {"register_index": True, "register_value": [1]},
                                     {"register_index": 0, "register_value": [1], "more": 1}])  # fmt: skip
def test_a_malformed_payload(payload):
    with pytest.raises(Malformed):
        wire.signed_register(cbor.dumps(payload))


KERNEL, LINE, DISK, META = (1, b"k"), (2, b"c"), (3, b"r"), (5, b"{}")


@pytest.mark.parametrize("sections", [
    [], [KERNEL], [KERNEL, LINE], [KERNEL, DISK], [LINE, KERNEL, DISK], [KERNEL, DISK, LINE],
    [KERNEL, KERNEL, LINE, DISK], [KERNEL, LINE, LINE, DISK], [KERNEL, LINE, DISK, META, META],
    [KERNEL, LINE, DISK, (4, b"")], [KERNEL, LINE, DISK, (0, b"x")], [KERNEL, LINE, DISK, (6, b"x")],
    [KERNEL, LINE, DISK, (4, b"s"), (4, b"s")], [KERNEL, LINE, DISK, (4, bytes(wire.MAX_SIGNATURE + 1))],
])  # fmt: skip
def test_images_that_nobody_would_boot(sections):
    with pytest.raises(Malformed):
        wire.parse(assemble(sections))


def test_a_header_that_lies():
    sections = IMAGE.sections()
    counts = [assemble(sections, count=count) for count in (0, len(sections) - 1, len(sections) + 1, 33)]
    versions = [assemble(sections, version=version) for version in (0, 1, 5)]
    table = IMAGE.build()
    table = with_crc(table[:276] + b"\1" + table[277:])  # an offset behind the last section
    for data in (*counts, *versions, assemble(sections, shift=1), table):
        with pytest.raises(Malformed):
            wire.parse(data)


def with_crc(data: bytes) -> bytes:
    """The same bytes with a right checksum."""
    return data[:544] + zlib.crc32(data[548:], zlib.crc32(data[:544])).to_bytes(4, "big") + data[548:]


def unmeasured(data: bytes) -> dict[int, str]:
    """The offsets whose change is seen by no register, with the reason."""
    found = dict.fromkeys(range(6, 28), "flags, memory, CPUs: what is asked of the parent instance")
    found |= dict.fromkeys(range(540, 544), "unused") | dict.fromkeys(range(544, 548), "the checksum, put right")
    at = 548
    for kind, content in SIGNED.sections():
        found |= dict.fromkeys((at + 2, at + 3), "flags of a section, without a meaning")
        if kind == 5:
            found |= dict.fromkeys(range(at + 12, at + 12 + len(content)), "metadata: measured by no register")
        if kind == 4:
            lines = {at + 12 + i for i, byte in enumerate(content) if byte == 10}
            found |= dict.fromkeys(lines, "white space of the certificate's PEM")
        at += 12 + len(content)
    assert at == len(data)
    return found


def test_every_changed_byte_is_refused_or_shown():
    """Without a right checksum: refused. With one: refused, or other registers, or a byte that nothing measures."""
    data = SIGNED.build()
    expected, reasons = eif(data), unmeasured(data)
    counts = {"refused": 0, "shown": 0, "unmeasured": 0}
    for offset in range(len(data)):
        changed = data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :]
        with pytest.raises(Malformed):
            eif(changed)
        try:
            same = eif(with_crc(changed)) == expected
        except (Malformed, Refused):
            counts["refused"] += 1
            continue
        counts["unmeasured" if same else "shown"] += 1
        assert not same or offset in reasons, offset
    print(f"EIF: {len(data)} bytes changed with a right checksum, {counts}")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=1200), st.booleans())
def test_fuzz_anything(data, headed):
    whole = IMAGE.build()[:548] + data if headed else data
    for candidate in (whole, with_crc(whole) if len(whole) >= 548 else whole):
        try:
            eif(candidate)
        except (Malformed, Refused):
            pass


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_fuzz_changed_images(data):
    image = SIGNED.build()
    offset = data.draw(st.integers(0, len(image) - 1))
    changed = image[:offset] + data.draw(st.binary(max_size=12)) + image[offset + data.draw(st.integers(0, 12)) :]
    try:
        eif(with_crc(changed) if len(changed) >= 548 else changed)
    except (Malformed, Refused):
        pass
