from __future__ import annotations

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from casemate.errors import Malformed, Unusable
from casemate.schema.endorsements import PRODUCTION, Anchor
from casemate.schema.launch import Launch
from casemate.tee import se
from casemate.tee.files import File, sort
from casemate.tee.se import arcb, exchange, files
from casemate.tee.se import report as wire
from casemate.tee.se.ask import KEY, REQUEST
from casemate.tee.se.measure import IMAGE_MAGIC, MAGIC, image_tags
from casemate.testing import pki
from casemate.testing.se import FakeMachine
from casemate.testing.se import image_tags as fake_tags

MACHINE = FakeMachine()
CHALLENGE = wire.parse_challenge(MACHINE.asked.challenge)
TAGS = fake_tags()
ANYTHING = st.one_of(st.none(), st.integers(), st.text(max_size=300), st.lists(st.integers()))
HEADER = (MAGIC + (0x100).to_bytes(4, "big") + (0x1B8).to_bytes(4, "big")).ljust(0xE0, b"\0") + (
    TAGS.pack()[:192] + bytes(8) + TAGS.tag
)


def exchange_file(parts, expected=(64, 64)):
    body, entries = b"", []
    for number, part in enumerate(parts):
        size = expected[number - 1] if not part and number in (1, 2) else len(part)
        entries.append((size, 64 + len(body) if part else 0))
        body += part
    words = b"".join(value.to_bytes(4, "big") for entry in entries for value in entry)
    return exchange.MAGIC + (0x100).to_bytes(4, "big") + (64 + len(body)).to_bytes(4, "big") + bytes(8) + words + body


RESPONSE = exchange_file([CHALLENGE.blob, bytes(64), bytes(64), b"user", bytes(16)])


def cut(data, draw):
    at = draw(st.integers(0, len(data) - 1))
    return data[:at] + draw(st.binary(max_size=6)) + data[at + draw(st.integers(0, 6)) :]


@pytest.mark.parametrize(
    ("parse", "seed"),
    [
        (arcb.parse, CHALLENGE.blob),
        (exchange.parse, RESPONSE),
        (wire.parse_challenge, MACHINE.asked.challenge),
        (image_tags, HEADER),
    ],
)
def test_fuzz_only_malformed(parse, seed):
    parse(seed)

    @settings(deadline=None, max_examples=120)
    @given(st.data())
    def run(data):
        changed = data.draw(st.one_of(st.builds(lambda: cut(seed, data.draw)), st.binary(max_size=300)))
        try:
            parse(changed)
        except Malformed:
            pass

    run()


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(st.sampled_from(["measurement", "cuid", "user_data", "image_hdr_tags"]), ANYTHING))
def test_fuzz_evidence_only_malformed(changes):
    from casemate.schema.request import Request

    primary = MACHINE.collect(Request()).primary | changes
    try:
        wire.parse_evidence(primary)
    except Malformed:
        pass


def test_trailing_bytes_are_no_part_of_a_request():
    with pytest.raises(Malformed):
        arcb.parse(CHALLENGE.blob + b"\0")
    with pytest.raises(Malformed):
        exchange.parse(RESPONSE + b"\0")


def test_an_exchange_entry_stays_inside():
    for offset in (1, 63, len(RESPONSE)):
        bad = RESPONSE[:28] + offset.to_bytes(4, "big") + RESPONSE[32:]
        with pytest.raises(Malformed):
            exchange.parse(bad)


@pytest.mark.parametrize(
    "image",
    [
        HEADER,
        bytes(0x1000) + HEADER,
        (bytes(0xC000) + IMAGE_MAGIC + (0x20000).to_bytes(8, "big")).ljust(0x20000, b"\0") + HEADER,
    ],
)
def test_the_image_is_known_by_its_header(image):
    assert se.measure(Launch(kernel=image)).values["tag"] == TAGS.tag.hex()
    assert se.measure(Launch(image=image)).values["pld"] == TAGS.pld.hex()
    assert image_tags(image) == TAGS


@pytest.mark.parametrize(
    "image",
    [b"", bytes(0x16000), HEADER[:100], HEADER[1:], HEADER.replace(b"\0\0\1\0", b"\0\0\2\0", 1),
     (bytes(0xC000) + IMAGE_MAGIC + b"\xff" * 8).ljust(0x20000, b"\0")],
)  # fmt: skip
def test_what_is_no_image(image):
    with pytest.raises(Malformed):
        image_tags(image)


def folder(machine=MACHINE, *, leave=(), extra=()):
    import json

    from casemate.schema.request import Request

    papers = machine.endorsements
    found = {
        "answer": json.dumps(machine.collect(Request(report_data=b"r" * 64)).primary).encode(),
        "asked": machine.asked.challenge,
        "key": machine.asked.secrets.get(KEY),
        "papers": b"".join((*papers.certificates, machine.root.certificate)),
        **machine.lists,
    }
    return sort([File(name, data) for name, data in (*found.items(), *extra) if name not in leave])


def trusting(found, *names):
    """What the room gathered with the relying party's root, and of its own papers those of these names."""
    own = {"key": MACHINE.asked.secrets.get(KEY), "asked": MACHINE.asked.challenge}
    papers = files.given(sort([File(name, own[name]) for name in names]), PRODUCTION, found.endorsements)
    root = Anchor(certificate=MACHINE.root.certificate, platform_class=PRODUCTION, name="Fake Z Root", tees=("se",))
    return msgspec.structs.replace(papers or found.endorsements, anchors=(root,))


def test_files_are_told_by_what_they_hold():
    import json

    from casemate.schema.request import Request

    found = files.gather(folder())
    assert found.missing == ()
    asked = Request(report_data=found.report_data)
    claims = se.verify(found.evidence, trusting(found, "key"), asked, pki.NOW)
    assert "Fake Z Root" in claims.vouched_by
    assert files.gather(folder(leave=("answer",))) is None
    for absent, gathered in (
        ("root, request-key|request-key, root", found.endorsements),  # both lie there, and nobody vouched for them
        ("request-key", trusting(found)),
        ("request", trusting(files.gather(folder(leave=("asked",))), "key")),
    ):
        with pytest.raises(Unusable, match=absent):
            se.verify(found.evidence, gathered, asked, pki.NOW)
    assert se.verify(found.evidence, trusting(files.gather(folder(leave=("asked",))), "key", "asked"), asked, pki.NOW)
    twice = MACHINE.collect(Request(report_data=b"q" * 64)).primary
    both = files.gather(folder(extra=(("more", json.dumps(twice).encode()),)))
    assert [name for name, _ in both.also] == ["more"]


def test_armour_is_never_taken_for_base64():
    text = b"-----BEGIN PRIVATE KEY-----\n" + b"MIIE" * 400 + b"\n-----END PRIVATE KEY-----\n"
    assert sort([File("rsa", text)]).blobs == (File("rsa", text),)


def test_a_request_beside_the_answer_is_not_believed_for_an_rsa_key():
    """Anybody seals keys of his own to the public key and writes request and answer."""
    private = pki.rsa2048().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    found = files.gather(folder(leave=("key",)))
    assert REQUEST in found.endorsements.collateral
    own = files.given(sort([File("rsa", private)]), PRODUCTION, found.endorsements)
    assert REQUEST not in own.collateral
    both = sort([File("rsa", private), File("asked", MACHINE.asked.challenge)])
    assert files.given(both, PRODUCTION, found.endorsements).collateral[REQUEST] == MACHINE.asked.challenge


def test_pvattest_files():
    import base64

    from casemate.schema.request import Request

    primary = MACHINE.collect(Request(report_data=b"r" * 64)).primary
    part = {name: base64.b64decode(value) for name, value in primary.items()}
    answer = exchange_file(
        [CHALLENGE.blob, part["measurement"], part["additional_data"], part["user_data"], part["cuid"]]
    )
    case = folder(leave=("answer", "asked"), extra=(("response.bin", answer), ("guest.hdr", HEADER)))
    found = files.gather(case)
    assert found.missing == ()
    assert se.verify(found.evidence, trusting(found, "key"), Request(report_data=b"r" * 64), pki.NOW).fresh
    without = folder(leave=("answer", "asked"), extra=(("response.bin", answer),))
    assert "header" in files.gather(without).missing[0]
    with pytest.raises(Unusable, match="tags"):
        se.verify(files.gather(without).evidence, found.endorsements, Request(), pki.NOW)
