import contextlib
import gzip
import hashlib
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.errors import Malformed, Refused, Unusable
from casemate.image import layers
from casemate.image import manifest as oci

SMALL = layers.Limits(inflated=1 << 20, ratio=50, slack=10_000)


def described(data, media_type=oci.OCI_LAYER + "+gzip"):
    return oci.Descriptor(media_type, "sha256:" + hashlib.sha256(data).hexdigest(), len(data))


def through(data, plain, *, limits=None, media_type=oci.OCI_LAYER + "+gzip", step=1 << 20):
    diff_id = "sha256:" + hashlib.sha256(plain).hexdigest()
    pieces = [data[i : i + step] for i in range(0, len(data), step)]
    return b"".join(layers.tar_chunks(pieces, described(data, media_type), None, diff_id, limits=limits))


def rule(call):
    with pytest.raises(Refused) as caught:
        call()
    return [finding.rule for finding in caught.value.findings]


@pytest.mark.parametrize("step", [1, 10, 1 << 20])
def test_gzip(step):
    plain = bytes(range(256)) * 300
    assert through(gzip.compress(plain), plain, step=step) == plain


def test_several_members():
    plain = b"a" * 5000 + b"b" * 5000
    assert through(gzip.compress(plain[:5000]) + gzip.compress(plain[5000:]), plain, step=7) == plain


def test_plain():
    assert through(b"tar", b"tar", media_type=oci.OCI_LAYER) == b"tar"


def test_large_output_from_little_input():
    plain = bytes(5 << 20)
    assert through(gzip.compress(plain), plain) == plain


@pytest.mark.parametrize(
    "data",
    [b"", b"not gzip", gzip.compress(b"x" * 1000)[:-1], gzip.compress(b"x") + b"junk", gzip.compress(b"x") + bytes(8),
     zlib.compress(b"x"), gzip.compress(b"x")[:-8] + bytes(8)],
)  # fmt: skip
def test_not_gzip(data):
    with pytest.raises(Malformed):
        through(data, b"x")


def test_zstd_is_told_where_it_is_missing():
    try:
        from compression import zstd  # noqa: F401
    except ImportError:
        with pytest.raises(Unusable, match="zstd"):
            through(b"x", b"x", media_type=oci.OCI_LAYER + "+zstd")


def test_diff_id():
    assert rule(lambda: through(gzip.compress(b"a"), b"b")) == ["image.layer.diff-id"]


def test_bomb_by_ratio():
    plain = bytes(200_000)
    assert rule(lambda: through(gzip.compress(plain), plain, limits=SMALL)) == ["image.layer.ratio"]


def test_bomb_by_total():
    import random

    plain = random.Random(1).randbytes(2 << 20)
    assert rule(lambda: through(gzip.compress(plain), plain, limits=SMALL)) == ["image.layer.inflated"]
    assert rule(lambda: through(plain, plain, limits=SMALL, media_type=oci.OCI_LAYER)) == ["image.layer.inflated"]


def test_bomb_of_many_members():
    plain = bytes(1000) * 1000
    data = gzip.compress(bytes(1000)) * 1000
    assert rule(lambda: through(data, plain, limits=layers.Limits(ratio=20, slack=1))) == ["image.layer.ratio"]


def judge(data, descriptor, **given):
    intake = layers.Intake(descriptor, None, **given)
    for start in range(0, len(data), 100):
        intake.update(data[start : start + 100])
    intake.finish()


def test_intake():
    data = b"x" * 1000
    judge(data, described(data))
    assert rule(lambda: judge(data[:-1], described(data))) == ["image.layer.size", "image.layer.digest"]
    assert rule(lambda: judge(data + b"y", described(data))) == ["image.layer.size"]
    assert rule(lambda: judge(b"y" * 1000, described(data))) == ["image.layer.digest"]
    assert rule(lambda: judge(data, described(data), limits=layers.Limits(stored=999))) == ["image.layer.size"]


@given(st.binary(max_size=500), st.integers(1, 100))
def test_any_bytes(data, step):
    pieces = [data[i : i + step] for i in range(0, len(data), step)]
    try:
        for _ in layers.inflate(pieces, "gzip", SMALL):
            pass
    except (Malformed, Refused):
        pass


@given(st.binary(max_size=3000), st.integers(0, 200), st.integers(0, 255))
def test_any_flip_is_found(plain, position, value):
    data = bytearray(gzip.compress(plain, mtime=0))
    position %= len(data)
    if data[position] == value:
        return
    data[position] = value
    # Some header bytes (time, system) say nothing of the content: then the content must be right.
    with contextlib.suppress(Malformed, Refused):
        assert through(bytes(data), plain) == plain
