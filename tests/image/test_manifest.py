import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.errors import Malformed
from casemate.image import manifest as oci

D = "sha256:" + "a" * 64
BLOB = {"mediaType": oci.OCI_LAYER + "+gzip", "digest": D, "size": 3}
IMAGE = {"schemaVersion": 2, "mediaType": oci.OCI_MANIFEST, "config": {**BLOB, "mediaType": oci.OCI_CONFIG},
         "layers": [BLOB], "extra": {"is": "ignored"}}  # fmt: skip
CONFIG = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [D]},
          "config": {"Entrypoint": None, "Cmd": ["a"], "ExposedPorts": {"80/tcp": {}}}}  # fmt: skip


def text(document):
    return json.dumps(document).encode()


def test_image_and_round_trip():
    found = oci.parse_image(text(IMAGE))
    assert found.layers[0].digest == D
    assert oci.parse(oci.encode(found)) == found
    assert oci.parse_config(text(CONFIG)).process.Cmd == ["a"]


def test_docker_types():
    found = oci.parse(text({**IMAGE, "mediaType": oci.DOCKER_MANIFEST}))
    assert isinstance(found, oci.Manifest)


def test_index_and_choice():
    one = {**BLOB, "mediaType": oci.OCI_MANIFEST, "platform": {"os": "linux", "architecture": "arm64"}}
    two = {**one, "digest": "sha256:" + "b" * 64, "platform": {"os": "linux", "architecture": "amd64"}}
    index = oci.parse(text({"schemaVersion": 2, "mediaType": oci.OCI_INDEX, "manifests": [one, two]}))
    assert isinstance(index, oci.Index)
    assert oci.choose(index, architecture="amd64").digest == two["digest"]
    with pytest.raises(Malformed):
        oci.choose(index, architecture="riscv64")
    with pytest.raises(Malformed):
        oci.parse_image(oci.encode(index))


@pytest.mark.parametrize(
    "change",
    [
        {"schemaVersion": 1},
        {"schemaVersion": "2"},
        {"mediaType": oci.OCI_INDEX},
        {"mediaType": "text/plain"},
        {"mediaType": 7},
        {"manifests": []},
        {"config": None},
        {"layers": None},
        {"layers": [{**BLOB, "size": -1}]},
        {"layers": [{**BLOB, "size": 1 << 60}]},
        {"layers": [{**BLOB, "size": "3"}]},
        {"layers": [{**BLOB, "size": 3.5}]},
        {"layers": [{**BLOB, "digest": "sha256:abc"}]},
        {"layers": [{**BLOB, "digest": D + "\n"}]},
        {"layers": [{**BLOB, "digest": "md5:" + "a" * 64}]},
        {"layers": [{**BLOB, "annotations": {"a": 1}}]},
        {"layers": [{**BLOB, "annotations": {"a": "x" * 70000}}]},
        {"layers": [BLOB] * 129},
    ],
)
def test_refused(change):
    with pytest.raises(Malformed):
        oci.parse(text({**IMAGE, **change}))


@pytest.mark.parametrize("raw", [b"", b"[]", b"null", b'{"a":1,"a":2}', b"\xff", b"[" * 100000, b" " * (5 << 20)])
def test_refused_bytes(raw):
    with pytest.raises(Malformed):
        oci.parse(raw)
    with pytest.raises(Malformed):
        oci.parse_config(raw)


@pytest.mark.parametrize(
    ("media_type", "compression", "encrypted"),
    [
        (oci.OCI_LAYER, "none", False),
        (oci.OCI_LAYER + "+gzip", "gzip", False),
        (oci.OCI_LAYER + "+zstd+encrypted", "zstd", True),
        (oci.OCI_LAYER + "+encrypted", "none", True),
        (oci.DOCKER_LAYER + ".gzip", "gzip", False),
        (oci.DOCKER_LAYER + ".gzip+encrypted", "gzip", True),
    ],
)
def test_layer_kinds(media_type, compression, encrypted):
    assert oci.layer_kind(media_type) == oci.LayerKind(compression, encrypted)


@pytest.mark.parametrize(
    "media_type",
    ["", "text/plain", oci.OCI_LAYER + "+xz", oci.OCI_LAYER + "+encrypted+gzip", oci.OCI_LAYER + "+encrypted+encrypted",
     "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
     "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"],
)  # fmt: skip
def test_unknown_layer_kinds(media_type):
    with pytest.raises(Malformed):
        oci.layer_kind(media_type)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just(D),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted(IMAGE)), JSON, st.sampled_from(sorted(BLOB)), JSON)
def test_any_value_anywhere(member, value, blob_member, blob_value):
    for document in ({**IMAGE, member: value}, {**IMAGE, "layers": [{**BLOB, blob_member: blob_value}]},
                     {"schemaVersion": 2, "manifests": value}):  # fmt: skip
        with contextlib.suppress(Malformed):
            oci.parse(text(document))


@given(st.sampled_from(sorted(CONFIG)), JSON)
def test_any_config_value(member, value):
    with contextlib.suppress(Malformed):
        oci.parse_config(text({**CONFIG, member: value}))


@given(st.binary(max_size=200))
def test_any_bytes(data):
    for parse in (oci.parse, oci.parse_config):
        with pytest.raises(Malformed):
            parse(data)
