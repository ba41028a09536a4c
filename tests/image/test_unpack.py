import contextlib
import os
import stat
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from casemate.errors import Malformed, Refused, Unusable
from casemate.image.unpack import Limits, Unpacker
from casemate.testing import tars

ROOT = os.geteuid() == 0


@pytest.fixture
def place(tmp_path):
    """A root, beside a file that nothing may touch."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("untouched")
    root = tmp_path / "root"
    root.mkdir()
    yield root
    assert sorted(p.name for p in tmp_path.iterdir()) == ["outside", "root"]
    assert [p.name for p in outside.iterdir()] == ["secret"]
    assert (outside / "secret").read_text() == "untouched"


def unpack(root, *layers, limits=None, own=None):
    with Unpacker(root, limits=limits, own=own) as unpacker:
        for layer in layers:
            unpacker.layer([layer])
        return unpacker


def rule(root, *layers, limits=None):
    with pytest.raises(Refused) as caught:
        unpack(root, *layers, limits=limits)
    return caught.value.findings[0].rule


def names(root):
    return sorted(str(p.relative_to(root)) for p in root.rglob("*"))


def test_ordinary_layer(place):
    unpack(
        place,
        tars.tar(
            tars.folder(b"./", mode=0o711, mtime=5),
            tars.folder(b"./etc/", mode=0o750, mtime=7),
            tars.file(b"./etc/passwd", b"root\n", mode=0o640, mtime=1234),
            tars.file(b"bin/su", b"x" * 3000, mode=0o4755),
            tars.symlink(b"etc/link", b"/etc/passwd"),
            tars.hard_link(b"etc/hard", b"etc/passwd"),
            tars.folder(b"closed", mode=0o555),
            tars.file(b"closed/inside", b"1"),
        ),
    )
    assert (place / "etc/passwd").read_bytes() == b"root\n"
    assert stat.S_IMODE((place / "etc/passwd").stat().st_mode) == 0o640
    assert (place / "etc/passwd").stat().st_mtime == 1234
    assert stat.S_IMODE((place / "bin/su").stat().st_mode) == 0o4755
    assert str((place / "etc/link").readlink()) == "/etc/passwd"
    assert (place / "etc/hard").stat().st_ino == (place / "etc/passwd").stat().st_ino
    assert stat.S_IMODE((place / "etc").stat().st_mode) == 0o750
    assert (place / "etc").stat().st_mtime == 7
    assert stat.S_IMODE((place / "closed").stat().st_mode) == 0o555
    assert stat.S_IMODE(place.stat().st_mode) == 0o711
    assert stat.S_IMODE((place / "bin").stat().st_mode) == 0o755  # no entry of its own


@pytest.mark.skipif(not ROOT, reason="owners need root")
def test_owners_and_capability(place):
    capability = bytes.fromhex("0100000200040000000000000000000000000000")  # cap_net_bind_service=ep
    unpack(
        place,
        tars.tar(
            tars.folder(b"d", uid=33, gid=34),
            tars.file(b"d/f", b"x", uid=1000, gid=1001, mode=0o4755),
            tars.symlink(b"d/l", b"f", uid=7, gid=8),
            tars.pax({b"uid": b"70000", b"gid": b"70001", b"SCHILY.xattr.user.note": b"left out"}),
            tars.file(b"d/big", b"x"),
            tars.pax({b"SCHILY.xattr.security.capability": capability}),
            tars.file(b"d/cap", b"x"),
        ),
    )
    assert ((place / "d").stat().st_uid, (place / "d").stat().st_gid) == (33, 34)
    assert ((place / "d/f").stat().st_uid, stat.S_IMODE((place / "d/f").stat().st_mode)) == (1000, 0o4755)
    assert (place / "d/l").lstat().st_gid == 8
    assert ((place / "d/big").stat().st_uid, (place / "d/big").stat().st_gid) == (70000, 70001)
    assert os.listxattr(place / "d/big") == []
    assert os.getxattr(place / "d/cap", "security.capability") == capability


def test_own_false_leaves_owners(place):
    unpack(place, tars.tar(tars.file(b"f", b"x", uid=1000, gid=1000)), own=False)
    assert (place / "f").stat().st_uid == os.geteuid()


# -- ways out


@pytest.mark.parametrize(
    "name", [b"../outside/secret", b"a/../../outside/secret", b"a/..", b"..", b"./../x", b"a/../b"]
)
def test_dot_dot_names(place, name):
    assert rule(place, tars.tar(tars.file(name, b"owned"))) == "image.layer.path"


@pytest.mark.parametrize("name", [b"/etc/passwd", b"//etc/passwd", b"/"])
def test_absolute_names(place, name):
    assert rule(place, tars.tar(tars.file(name, b"owned"))) == "image.layer.path"


@pytest.mark.parametrize("kind", [b"5", b"2", b"1"])
def test_dot_dot_of_other_kinds(place, kind):
    assert rule(place, tars.tar(tars.header(b"../out", kind, link=b"x"))) == "image.layer.path"


def test_pax_path_is_judged_too(place):
    layer = tars.tar(tars.pax({b"path": b"../outside/secret"}), tars.file(b"innocent", b"owned"))
    assert rule(place, layer) == "image.layer.path"


def test_gnu_long_name_is_judged_too(place):
    layer = tars.tar(
        tars.header(b"././@LongLink", b"L", size=18), tars.data(b"../outside/secret\0"), tars.file(b"x", b"")
    )
    assert rule(place, layer) == "image.layer.path"


def test_ustar_prefix_is_judged_too(place):
    assert rule(place, tars.tar(tars.file(b"secret", b"x", prefix=b"../outside"))) == "image.layer.path"


@pytest.mark.parametrize("target", [b"../outside", b"/outside", b"../../../../../../outside"])
def test_write_through_symlinked_parent_stays_inside(place, target):
    unpack(place, tars.tar(tars.symlink(b"way", target), tars.file(b"way/secret", b"inside")))
    assert (place / "outside/secret").read_bytes() == b"inside"


def test_write_through_symlink_of_lower_layer_stays_inside(place):
    lower = tars.tar(tars.symlink(b"way", str(place.parent / "outside").encode()))
    unpack(place, lower, tars.tar(tars.file(b"way/secret", b"inside")))
    assert (place / str(place.parent / "outside").lstrip("/") / "secret").read_bytes() == b"inside"


def test_symlink_chain_inside(place):
    unpack(
        place,
        tars.tar(
            tars.folder(b"real"), tars.symlink(b"a", b"b"), tars.symlink(b"b", b"real/../real"), tars.file(b"a/f", b"1")
        ),
    )
    assert (place / "real/f").read_bytes() == b"1"


def test_symlink_loop(place):
    layer = tars.tar(tars.symlink(b"a", b"b"), tars.symlink(b"b", b"a"), tars.file(b"a/f", b"1"))
    assert rule(place, layer) == "image.layer.link"


def test_file_over_symlink_replaces_the_link(place):
    lower = tars.tar(tars.symlink(b"f", b"../outside/secret"))
    unpack(place, lower, tars.tar(tars.file(b"f", b"new")))
    assert (place / "f").read_bytes() == b"new"
    assert not (place / "f").is_symlink()


def test_folder_over_symlink_replaces_the_link(place):
    lower = tars.tar(tars.symlink(b"d", b"../outside"))
    unpack(place, lower, tars.tar(tars.folder(b"d"), tars.file(b"d/secret", b"new")))
    assert not (place / "d").is_symlink()
    assert (place / "d/secret").read_bytes() == b"new"


def test_hard_link_out_by_name(place):
    assert rule(place, tars.tar(tars.hard_link(b"h", b"../outside/secret"))) == "image.layer.path"


def test_hard_link_out_absolute(place):
    assert rule(place, tars.tar(tars.hard_link(b"h", b"/outside/secret"))) == "image.layer.path"


def test_hard_link_through_symlinked_parent_stays_inside(place):
    layer = tars.tar(tars.symlink(b"way", b"../outside"), tars.hard_link(b"h", b"way/secret"))
    assert rule(place, layer) == "image.layer.link"


def test_hard_link_to_symlink_is_no_way_out(place):
    lower = tars.tar(tars.symlink(b"s", b"../outside/secret"), tars.hard_link(b"h", b"s"))
    unpack(place, lower, tars.tar(tars.file(b"h", b"new")))
    assert str((place / "s").readlink()) == "../outside/secret"
    assert (place / "h").read_bytes() == b"new"


@pytest.mark.parametrize("target", [b"missing", b"dir", b"h", b"dir/missing", b"gone/x", b"", b"."])
def test_hard_link_to_no_file(place, target):
    assert rule(place, tars.tar(tars.folder(b"dir"), tars.hard_link(b"h", target))) == "image.layer.link"


def test_hard_link_does_not_write_through_to_lower_layer(place):
    lower = tars.tar(tars.file(b"f", b"lower"), tars.hard_link(b"h", b"f"))
    unpack(place, lower, tars.tar(tars.file(b"h", b"upper")))
    assert (place / "f").read_bytes() == b"lower"


def test_whiteout_through_symlinked_parent_stays_inside(place):
    lower = tars.tar(tars.symlink(b"way", b"../outside"))
    unpack(place, lower, tars.tar(tars.file(b"way/.wh.secret")), tars.tar(tars.file(b"way/.wh..wh..opq")))


# -- kinds


@pytest.mark.parametrize(
    ("kind", "shown"),
    [
        (b"3", "character device"),
        (b"4", "block device"),
        (b"6", "FIFO"),
        (b"A", "unknown"),
        (b"M", "unknown"),
        (b"V", ""),
    ],
)
def test_kinds_refused(place, kind, shown):
    with pytest.raises(Refused) as caught:
        unpack(place, tars.tar(tars.header(b"dev/thing", kind)))
    assert caught.value.findings[0].rule == "image.layer.type"
    assert shown in caught.value.findings[0].found
    assert names(place) in ([], ["dev"])


def test_sparse_refused(place):
    with pytest.raises(Malformed, match="sparse"):
        unpack(place, tars.tar(tars.header(b"f", b"S")))
    with pytest.raises(Malformed, match="sparse"):
        unpack(place, tars.tar(tars.pax({b"GNU.sparse.major": b"1"}), tars.file(b"f")))


def test_trusted_xattr_refused(place):
    layer = tars.tar(tars.pax({b"SCHILY.xattr.trusted.overlay.redirect": b"/outside"}), tars.folder(b"d"))
    assert rule(place, layer) == "image.layer.xattr"


def test_empty_symlink_target(place):
    assert rule(place, tars.tar(tars.symlink(b"s", b""))) == "image.layer.link"


def test_root_that_is_no_folder(place):
    assert rule(place, tars.tar(tars.file(b"./", b""), tars.file(b".", b"x"))) == "image.layer.path"
    assert rule(place, tars.tar(tars.symlink(b".", b"/outside"))) == "image.layer.path"


# -- names


def test_nul_in_pax_name(place):
    with pytest.raises(Malformed):
        unpack(place, tars.tar(tars.pax({b"path": b"a\0b"}), tars.file(b"x")))


def test_long_part(place):
    assert rule(place, tars.tar(tars.pax({b"path": b"a" * 256}), tars.file(b"x"))) == "image.layer.path"


def test_long_path(place):
    with pytest.raises(Malformed):
        unpack(place, tars.tar(tars.pax({b"path": b"a/" * 2100}), tars.file(b"x")))


def test_deep_path(place):
    assert rule(place, tars.tar(tars.pax({b"path": b"a/" * 200 + b"x"}), tars.file(b"x"))) == "image.layer.depth"


def test_depth_cannot_be_lent_from_links(place):
    parts = [tars.pax({b"path": b"a/" * 99 + b"x"}), tars.file(b"x")]
    for number in range(3):
        target = b"/".join([b"a"] * 90) if number == 0 else b"l%d/" % (number - 1) + b"/".join([b"b"] * 90)
        parts += [tars.pax({b"linkpath": target}), tars.symlink(b"l%d" % number, b"x")]
        parts += [tars.pax({b"path": b"l%d/" % number + b"b/" * 90 + b"x"}), tars.file(b"x")]
    assert rule(place, tars.tar(*parts)) == "image.layer.depth"


def test_bytes_that_are_no_utf8_are_kept(place):
    unpack(place, tars.tar(tars.file(b"caf\xe9", b"1")))
    assert [os.fsencode(path.name) for path in place.iterdir()] == [b"caf\xe9"]


@pytest.mark.parametrize(
    "second",
    ["file", "symlink", "hard_link", "folder"],
)
def test_duplicate_entries(place, second):
    again = {
        "file": tars.file(b"f", b"2"),
        "symlink": tars.symlink(b"f", b"x"),
        "hard_link": tars.hard_link(b"f", b"g"),
        "folder": tars.folder(b"f"),
    }[second]
    layer = tars.tar(tars.file(b"g", b"0"), tars.file(b"f", b"1"), again)
    assert rule(place, layer) == "image.layer.duplicate"
    lower = tars.tar(tars.file(b"below", b"0"))
    (place / "f").unlink()
    (place / "g").unlink()
    assert rule(place, lower, layer) == "image.layer.duplicate"


def test_duplicate_by_another_spelling(place):
    layer = tars.tar(tars.folder(b"d"), tars.symlink(b"s", b"d"), tars.file(b"d/f", b"1"), tars.file(b"s//./f", b"2"))
    assert rule(place, layer) == "image.layer.duplicate"


def test_duplicate_folder_is_fine(place):
    unpack(place, tars.tar(tars.folder(b"d"), tars.file(b"d/f"), tars.folder(b"d", mode=0o700)))
    assert stat.S_IMODE((place / "d").stat().st_mode) == 0o700


def test_folder_told_again_while_it_is_in_use(place):
    """A descriptor of a folder is used on after its entry came late, and never after the folder was replaced."""
    unpack(
        place,
        tars.tar(tars.file(b"a/b/1"), tars.folder(b"a/b"), tars.file(b"a/b/2"), tars.folder(b"a"), tars.file(b"a/3")),
        tars.tar(tars.file(b"a/b/4"), tars.folder(b"a"), tars.file(b"a/b/5")),
        tars.tar(tars.file(b".wh.a"), tars.file(b"a/b/6")),
    )
    assert names(place) == ["a", "a/b", "a/b/6"]


def test_file_as_parent(place):
    assert rule(place, tars.tar(tars.file(b"f", b"1"), tars.file(b"f/x", b"2"))) == "image.layer.parent"


# -- replacing across layers


def test_file_over_folder_and_back(place):
    unpack(
        place,
        tars.tar(tars.folder(b"x"), tars.file(b"x/deep/er", b"1"), tars.file(b"y", b"2")),
        tars.tar(tars.file(b"x", b"file"), tars.folder(b"y"), tars.file(b"y/in", b"3")),
    )
    assert (place / "x").read_bytes() == b"file"
    assert (place / "y/in").read_bytes() == b"3"


def test_hard_link_and_symlink_over_folder(place):
    unpack(
        place,
        tars.tar(tars.file(b"a/1", b"1"), tars.file(b"b/1", b"1"), tars.file(b"f", b"f")),
        tars.tar(tars.symlink(b"a", b"f"), tars.hard_link(b"b", b"f")),
    )
    assert str((place / "a").readlink()) == "f"
    assert (place / "b").read_bytes() == b"f"


def test_stale_directory_is_not_used_after_replacement(place):
    unpack(
        place,
        tars.tar(tars.file(b"d/old", b"1"), tars.folder(b"e")),
        tars.tar(tars.file(b"d/new", b"2"), tars.file(b"e/.wh.x"), tars.symlink(b"q", b"d"), tars.file(b"q/via", b"3")),
        tars.tar(tars.symlink(b"d", b"e"), tars.file(b"d/behind", b"4")),
    )
    assert names(place) == ["d", "e", "e/behind", "q"]


# -- whiteouts


def test_whiteouts(place):
    unpack(
        place,
        tars.tar(tars.file(b"a/1"), tars.file(b"a/2"), tars.file(b"b/c/3"), tars.symlink(b"s", b"a"), tars.file(b"k")),
        tars.tar(tars.file(b"a/.wh.1"), tars.file(b".wh.b"), tars.file(b".wh.s"), tars.file(b"none/.wh.x")),
    )
    assert names(place) == ["a", "a/2", "k"]


def test_opaque_whiteout_keeps_what_its_layer_brought_in_any_order(place):
    lower = tars.tar(tars.file(b"d/old"), tars.file(b"d/sub/old"), tars.file(b"d/both", b"old"), tars.file(b"k"))
    opaque = tars.file(b"d/.wh..wh..opq")
    upper = [tars.folder(b"d"), tars.file(b"d/new"), tars.file(b"d/sub/new"), tars.file(b"d/both", b"new")]
    unpack(place, lower, tars.tar(*upper, opaque))
    assert names(place) == ["d", "d/both", "d/new", "d/sub", "d/sub/new", "k"]
    other = place.parent / "root"
    for name in ("d/both", "d/new", "d/sub/new", "k"):
        (other / name).unlink()
    unpack(place, lower, tars.tar(opaque, *upper))
    assert names(place) == ["d", "d/both", "d/new", "d/sub", "d/sub/new", "k"]
    assert (place / "d/both").read_bytes() == b"new"


def test_opaque_whiteout_of_the_root(place):
    unpack(place, tars.tar(tars.file(b"a/1"), tars.file(b"b")), tars.tar(tars.file(b".wh..wh..opq"), tars.file(b"c")))
    assert names(place) == ["c"]


def test_whiteout_does_not_hide_its_own_layer(place):
    lower = tars.tar(tars.file(b"f", b"old"), tars.file(b"d/old"))
    upper = tars.tar(tars.file(b"f", b"new"), tars.file(b".wh.f"), tars.file(b"d/new"), tars.file(b".wh.d"))
    unpack(place, lower, upper)
    assert (place / "f").read_bytes() == b"new"
    assert names(place) == ["d", "d/new", "f"]


def test_whiteout_then_again(place):
    unpack(place, tars.tar(tars.file(b"d/old")), tars.tar(tars.file(b".wh.d"), tars.file(b"d/new")))
    assert names(place) == ["d", "d/new"]


@pytest.mark.parametrize("name", [b".wh.", b".wh..", b".wh...", b"a/.wh..."])
def test_whiteout_of_nothing(place, name):
    assert rule(place, tars.tar(tars.file(b"a/x"), tars.file(name))) == "image.layer.whiteout"


def test_folder_called_like_a_whiteout(place):
    assert rule(place, tars.tar(tars.file(b".wh.d/x", b"1"))) == "image.layer.whiteout"


def test_aufs_metadata_is_left_out(place):
    unpack(place, tars.tar(tars.folder(b".wh..wh.plnk"), tars.file(b".wh..wh.aufs"), tars.file(b"f")))
    assert names(place) == ["f"]


# -- bounds


def test_entry_count(place):
    layer = tars.tar(*(tars.file(b"f%d" % n) for n in range(12)))
    assert rule(place, layer, limits=Limits(entries=10)) == "image.layer.entries"
    assert rule(place, tars.tar(*(tars.file(b".wh.f%d" % n) for n in range(12))), limits=Limits(entries=10)) == (
        "image.layer.entries"
    )


def test_file_and_total_size(place):
    layer = tars.tar(tars.file(b"a", b"x" * 600), tars.file(b"b", b"x" * 600))
    assert rule(place, layer, limits=Limits(file=500)) == "image.layer.file"
    assert rule(
        place, tars.tar(tars.file(b"c", b"x" * 600), tars.file(b"d", b"x" * 600)), limits=Limits(total=1000)
    ) == ("image.layer.total")


def test_totals_count_over_layers(place):
    one, two = (tars.tar(tars.file(name, b"x" * 600)) for name in (b"a", b"b"))
    assert rule(place, one, two, limits=Limits(total=1000)) == "image.layer.total"


def test_huge_announced_file(place):
    assert (
        rule(place, tars.tar(tars.header(b"f", size=0o77777777777)), limits=Limits(file=1 << 30)) == "image.layer.file"
    )


def test_cut_short(place):
    whole = tars.tar(tars.file(b"f", b"x" * 2000))
    for length in (100, 511, 600, 1500, 2500):
        with Unpacker(place) as unpacker, pytest.raises(Malformed):
            unpacker.layer([whole[:length]])
        (place / "f").unlink(missing_ok=True)


def test_no_space_is_told(tmp_path):
    with pytest.raises(Unusable):
        Unpacker(tmp_path / "missing")


def test_many_folders_stay_within_descriptors_and_memory(place):
    parts = [tars.file(b"d%d/s/f" % n, b"1") for n in range(700)]
    before = len(list(Path("/proc/self/fd").iterdir()))  # other tests of this process may hold some
    tracemalloc.start()
    unpack(place, tars.tar(*parts), tars.tar(*(tars.file(b"d%d/s/g" % n, b"1") for n in range(700))))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20
    assert len(names(place)) == 700 * 4
    assert len(list(Path("/proc/self/fd").iterdir())) < before + 10


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from([b"0", b"1", b"2", b"5", b"6", b"\0", b"g", b"x", b"L"]),
                          st.sampled_from([b"a", b"b", b"a/b", b"../a", b"a/../b", b"/a", b"a/b/c", b".", b".wh.a",
                                           b"a/.wh..wh..opq", b"b/.wh.b", b"a/b/", b"..", b"l/x", b"l"]),
                          st.sampled_from([b"", b"a", b"../..", b"/", b"b", b"l", b"..", b"a/b"]),
                          st.sampled_from([0, 3, 513])), max_size=8), st.integers(0, 7))  # fmt: skip
def test_any_entries_stay_inside(tmp_path_factory, entries, split):
    base = tmp_path_factory.mktemp("fuzz")
    (base / "root").mkdir()
    (base / "secret").write_text("untouched")
    parts = [tars.header(name, kind, link=link, size=size) + tars.data(b"x" * size if kind not in b"125" else b"")
             for kind, name, link, size in entries]  # fmt: skip
    with contextlib.suppress(Malformed, Refused):
        unpack(base / "root", tars.tar(*parts[:split]), tars.tar(*parts[split:]))
    assert sorted(p.name for p in base.iterdir()) == ["root", "secret"]
    assert (base / "secret").read_text() == "untouched"
