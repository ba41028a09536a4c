"""ID blocks: published vectors, the package sev-snp-measure, and reports that are or are not of that launch."""

import base64
import json
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from casemate.errors import Malformed, Refused, Unusable
from casemate.schema.endorsements import Endorsements
from casemate.schema.request import Request
from casemate.tee import snp
from casemate.tee.snp import idblock
from casemate.testing.snp import FakeChip

ROOT = Path(os.environ.get("CASEMATE_EVIDENCE", Path(__file__).resolve().parents[4] / "shared" / "evidence"))
VECTORS = ROOT / "snp" / "vectors-id-block"
KEY, AUTHOR = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
DIGEST = bytes(range(48))


def point(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]


def signer(key: ec.EllipticCurvePrivateKey):
    def sign(data: bytes) -> bytes:
        return b"".join(n.to_bytes(48, "big") for n in decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA384()))))

    return sign


def made(*, author: bool = True, **fields) -> tuple[bytes, bytes]:
    block = idblock.block(DIGEST, **fields)
    rest = (point(AUTHOR.public_key()), signer(AUTHOR)) if author else ()
    return block, idblock.authentication(block, point(KEY.public_key()), signer(KEY), *rest)


def verified(block: bytes, auth: bytes, *, author: bool = True, **fields):
    shown = {
        "measurement": DIGEST,
        "id_key_digest": idblock.key_digest(point(KEY.public_key())),
        "author_key_digest": idblock.key_digest(point(AUTHOR.public_key())) if author else bytes(48),
        "key_info": int(author),
        **fields,
    }
    chip, request = FakeChip(fields=shown), Request(report_data=b"n" * 32)
    given = chip.endorsements
    collateral = {**given.collateral, "id_block": block, "id_auth": auth}
    endorsements = Endorsements(certificates=given.certificates, anchors=given.anchors, collateral=collateral)
    return snp.verify(chip.collect(request), endorsements, request, chip.now)


@pytest.mark.skipif(not VECTORS.is_dir(), reason=f"no genuine evidence at {ROOT}: set CASEMATE_EVIDENCE")
def test_published_vectors():
    vectors = json.loads((VECTORS / "vectors.json").read_text())
    for name in ("id", "author"):
        public = load_pem_public_key((VECTORS / f"{name}_key_pub.pem").read_bytes())
        assert idblock.key_digest(point(public)).hex() == vectors[f"expected_{name}_key_digest"]
    block = idblock.block(bytes.fromhex(vectors["launch_digest"]))
    assert block.hex() == vectors["expected_id_block"]
    assert idblock.parse(block).launch_digest.hex() == vectors["launch_digest"]


def test_structures_of_the_oracle_are_read_and_verify(tmp_path):
    theirs = pytest.importorskip("sevsnpmeasure.id_block")
    for name, key in (("id", KEY), ("author", AUTHOR)):
        (tmp_path / name).write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    text = theirs.snp_calc_id_block(DIGEST, str(tmp_path / "id"), str(tmp_path / "author"))
    named = dict(part.split("=", 1) for part in text.split("\n")[0].split(","))
    block, auth = (base64.b64decode(named[name]) for name in ("id-block", "id-auth"))
    assert block == made()[0]
    assert len(auth) == idblock.AUTHENTICATION_SIZE
    mine = idblock.parse_authentication(made()[1])
    found = idblock.parse_authentication(auth)
    assert (found.key, found.author_key) == (mine.key, mine.author_key)
    assert "snp.idblock.author" in {f.rule for f in verified(block, auth).checks if f.ok}


@pytest.mark.parametrize("author", [True, False])
def test_a_report_of_this_launch(author):
    claims = verified(*made(author=author), author=author)
    rules = {f.rule.removeprefix("snp.idblock.") for f in claims.checks if f.ok and ".idblock." in f.rule}
    wanted = {"signature", "key", "author_key", "author_enabled", "digest", "policy", "svn", "ids"}
    assert rules == wanted | ({"author"} if author else set())


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"measurement": bytes(48)}, "digest"),
        ({"id_key_digest": bytes(48)}, "key"),
        ({"author_key_digest": bytes(48)}, "author_key"),
        ({"key_info": 0}, "author_enabled"),
        ({"guest_svn": 1}, "svn"),
        ({"policy": 0x130000}, "policy"),
        ({"image_id": b"x" * 16}, "ids"),
        ({"family_id": b"x" * 16}, "ids"),
    ],
)
def test_a_report_of_another_launch(fields, rule):
    with pytest.raises(Refused) as refused:
        verified(*made(), **fields)
    assert [f.rule for f in refused.value.findings if not f.ok] == [f"snp.idblock.{rule}"]


def test_signatures_by_others():
    block, _ = made()
    swapped = idblock.authentication(
        block, point(KEY.public_key()), signer(AUTHOR), point(AUTHOR.public_key()), signer(KEY)
    )
    with pytest.raises(Refused) as refused:
        verified(block, swapped)
    failed = {f.rule for f in refused.value.findings if not f.ok}
    assert failed == {"snp.idblock.signature", "snp.idblock.author"}


@pytest.mark.parametrize("parts", [(b"", made()[1]), (made()[0], b""), (made()[0], made()[1] + b"\0")], ids=len)
def test_half_of_it_is_refused(parts):
    with pytest.raises(Refused, match="idblock"):
        verified(*parts)


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (0, 2, "algorithms"), (4, 2, "algorithms"), (8, 1, "reserved"), (64 + 48, 1, "384 bits"),
        (64 + 144, 1, "reserved"), (576, 3, "curve"), (576 + 4 + 48, 1, "384 bits"), (4095, 1, "reserved"),
        (1604, 1, "reserved"),
    ],
)  # fmt: skip
def test_named_defects(at, value, message):
    data = bytearray(made()[1])
    data[at] = value
    with pytest.raises(Malformed, match=message):
        idblock.parse_authentication(bytes(data))


def test_an_author_that_is_not_announced():
    data = bytearray(made()[1])
    data[4] = 0
    with pytest.raises(Malformed, match="reserved"):
        idblock.parse_authentication(bytes(data))


def test_sizes():
    assert len(idblock.block(bytes(48))) == idblock.SIZE
    for bad in (
        lambda: idblock.block(bytes(47)),
        lambda: idblock.key_digest(bytes(95)),
        lambda: idblock.block(bytes(48), guest_svn=1 << 32),
        lambda: idblock.authentication(bytes(96), bytes(96), lambda _: b"short"),
    ):
        with pytest.raises(Unusable):
            bad()
    with pytest.raises(Malformed, match="version"):
        idblock.parse(idblock.block(bytes(48)).replace(b"\x01\0\0\0\0\0\0\0", b"\x02\0\0\0\0\0\0\0"))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_bytes_raise_only_malformed(data):
    raw = bytearray(made()[data.draw(st.integers(0, 1))])
    for _ in range(data.draw(st.integers(1, 5))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(raw)[: data.draw(st.integers(0, len(raw)))] if data.draw(st.booleans()) else bytes(raw)
    for parse in (idblock.parse, idblock.parse_authentication):
        try:
            parse(cut)
        except Malformed:
            pass
