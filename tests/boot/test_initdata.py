"""The initdata document and its disk: deterministic, strict, bounded."""

import gzip
import hashlib
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.boot import initdata
from casemate.errors import Malformed
from casemate.schema import manifest as manifests
from casemate.testing.manifests import document

MANIFEST = manifests.from_builtins(document())
DOCUMENT = initdata.document(MANIFEST)


def test_one_manifest_one_document():
    again = manifests.parse(MANIFEST.canonical())
    assert initdata.document(again) == DOCUMENT
    # Pinned: guests compare digests, so the document of a manifest may never change between versions.
    assert hashlib.sha256(DOCUMENT).hexdigest() == initdata.digest(DOCUMENT).hex()
    assert initdata.digest(DOCUMENT).hex() == "b449e584e04125789e9513ca75d63b6c29d33db3c1ae4168d711ac77e58a789e"


def test_the_document_is_cocos_toml_with_the_canonical_manifest():
    read = tomllib.loads(DOCUMENT.decode())
    assert read == {
        "version": "0.1.0",
        "algorithm": "sha256",
        "data": {"casemate.json": MANIFEST.canonical().decode()},
    }


def test_round_trip():
    read = initdata.parse(DOCUMENT)
    assert read.manifest == MANIFEST
    assert read.digest == hashlib.sha256(DOCUMENT).digest()


def test_another_spelling_of_the_same_toml_is_read_and_has_its_own_digest():
    text = f"algorithm='sha256'\nversion='0.1.0'\n[data]\n'casemate.json' = '''{MANIFEST.canonical().decode()}'''\n"
    read = initdata.parse(text.encode())
    assert read.manifest == MANIFEST
    assert read.digest != initdata.digest(DOCUMENT)


@given(st.text(max_size=40).filter(lambda text: "\0" not in text))
def test_any_text_in_the_manifest_survives(text):
    made = document()
    made["containers"][0]["env"][0]["value"] = text
    try:
        manifest = manifests.from_builtins(made)
        data = initdata.document(manifest)
    except Malformed:
        assert any(0xD800 <= ord(c) <= 0xDFFF for c in text)
        return
    assert initdata.parse(data).manifest == manifest
    assert initdata.parse_disk(initdata.disk(data)) == data


HEAD = 'version = "0.1.0"\nalgorithm = "sha256"\n[data]\n'
ENTRY = f"\"casemate.json\" = '''{MANIFEST.canonical().decode()}'''\n"
BAD = {
    "empty": "",
    "not TOML": "version =",
    "no data": 'version = "0.1.0"\nalgorithm = "sha256"\n',
    "no manifest": HEAD,
    "another algorithm": HEAD.replace("sha256", "sha384") + ENTRY,
    "another version": HEAD.replace("0.1.0", "0.2.0") + ENTRY,
    "unknown top field": "x = 1\n" + HEAD + ENTRY,
    "an entry that nobody judges": HEAD + ENTRY + "\"policy.rego\" = ''\n",
    "entry is a table": HEAD.replace("[data]", '[data."casemate.json"]'),
    "data is text": 'version = "0.1.0"\nalgorithm = "sha256"\ndata = "x"\n',
    "the same key twice": HEAD + ENTRY + ENTRY,
    "not canonical": HEAD + ENTRY.replace('{"apiVersion"', '{ "apiVersion"'),
    "default written out": HEAD + ENTRY.replace('"name":"shop"', '"name":"shop","quorum":1'),
    "not a manifest": HEAD + "\"casemate.json\" = '{}'\n",
    "deep": "x = " + "[" * 100_000,
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_bad_documents(text):
    with pytest.raises(Malformed):
        initdata.parse(text.encode())


def test_bounds():
    with pytest.raises(Malformed, match="at most"):
        initdata.parse(b"#" * (initdata.MAX_DOCUMENT + 1))
    with pytest.raises(Malformed, match="UTF-8"):
        initdata.parse(b"\xff")


@given(st.binary(max_size=300))
def test_any_bytes_as_a_document(data):
    with pytest.raises(Malformed):
        initdata.parse(data)


@given(st.integers(0, len(DOCUMENT) - 1), st.integers(0, 255))
def test_one_changed_byte_is_malformed_or_another_digest(place, byte):
    data = DOCUMENT[:place] + bytes([byte]) + DOCUMENT[place + 1 :]
    try:
        read = initdata.parse(data)
    except Malformed:
        return
    assert (read.digest == initdata.digest(DOCUMENT)) is (data == DOCUMENT)


def test_the_disk_has_the_layout_of_kata_containers():
    disk = initdata.disk(DOCUMENT)
    assert disk[:8] == b"initdata"
    size = int.from_bytes(disk[8:16], "little")
    assert gzip.decompress(disk[16 : 16 + size]) == DOCUMENT
    assert not disk[16 + size :].strip(b"\0")
    assert len(disk) % 512 == 0


def packed(data, *, size=None, magic=b"initdata", pad=True):
    raw = magic + (len(data) if size is None else size).to_bytes(8, "little") + data
    return raw + bytes(-len(raw) % 512 if pad else 0)


def test_a_disk_made_by_others_is_read():
    assert initdata.parse_disk(packed(gzip.compress(DOCUMENT, 1))) == DOCUMENT
    assert initdata.parse_disk(packed(gzip.compress(DOCUMENT), pad=False)) == DOCUMENT
    assert initdata.parse_disk(initdata.disk(DOCUMENT) + bytes(1 << 20)) == DOCUMENT


GZIP = gzip.compress(DOCUMENT)
BAD_DISKS = {
    "empty": b"",
    "only the magic": b"initdata",
    "another magic": packed(GZIP, magic=b"initramd"),
    "length past the end": packed(GZIP, size=1 << 40),
    "length of all ones": packed(GZIP, size=(1 << 64) - 1),
    "cut gzip": packed(GZIP[:-1]),
    "cut length": packed(GZIP, size=len(GZIP) - 1),
    "not gzip": packed(b"x" * 40),
    "bad checksum": packed(GZIP[:-8] + b"\0\0\0\0" + GZIP[-4:]),
    "two members": packed(GZIP + GZIP),
    "something behind": packed(GZIP) + b"x",
    "bomb": packed(gzip.compress(bytes(initdata.MAX_DOCUMENT + 1))),
    "too large": packed(GZIP) + bytes(initdata.MAX_DISK),
}


@pytest.mark.parametrize("data", BAD_DISKS.values(), ids=BAD_DISKS)
def test_bad_disks(data):
    with pytest.raises(Malformed):
        initdata.parse_disk(data)


@given(st.binary(max_size=200))
def test_any_bytes_as_a_disk(data):
    for disk in (data, b"initdata" + data, packed(data)):
        with pytest.raises(Malformed):
            initdata.parse_disk(disk)


@given(st.integers(0, 1023), st.integers(1, 255))
def test_a_flipped_byte_on_the_disk_is_malformed_or_the_same_document(place, flip):
    disk = bytearray(initdata.disk(DOCUMENT))
    disk[place % len(disk)] ^= flip
    try:
        assert initdata.parse_disk(bytes(disk)) == DOCUMENT
    except Malformed:
        return
