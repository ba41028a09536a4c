"""Paths and users of an image are the image author's word: followed inside its root, and nowhere else."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.errors import Malformed
from casemate.guest import inside, users
from casemate.guest.users import User


@pytest.fixture
def root(tmp_path):
    made = tmp_path / "root"
    (made / "etc").mkdir(parents=True)
    return made


@pytest.mark.parametrize(
    ("link", "aim", "path", "expected"),
    [
        ("var", "/etc", "/var/x", "etc/x"),
        ("var", "../../../etc", "/var/x", "etc/x"),
        ("var", "etc/.././etc", "/var/../var/x", "etc/x"),
        ("var", "/missing/deep", "/var/x", "missing/deep/x"),
        ("var", "/", "/var/etc", "etc"),
    ],
)
def test_links_are_followed_inside(root, link, aim, path, expected):
    (root / link).symlink_to(aim)
    assert inside.resolve(root, path) == root / expected


def test_loops_end(root):
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("a")
    with pytest.raises(Malformed):
        inside.resolve(root, "/a/x")


PARTS = st.lists(st.sampled_from(["a", "b", "..", ".", "", "etc"]), max_size=5)


@given(st.lists(st.tuples(st.sampled_from("abc"), PARTS, st.booleans()), max_size=3), PARTS)
def test_no_path_leaves_the_root(tmp_path_factory, links, path):
    root = tmp_path_factory.mktemp("r")
    for name, aim, absolute in links:
        place = root / name
        if not place.is_symlink():
            place.symlink_to(("/" if absolute else "") + ("/".join(aim) or "x"))
    try:
        found = inside.resolve(root, "/" + "/".join(path))
    except Malformed:
        return
    assert found == root or root in found.parents
    assert ".." not in found.parts


def test_folders_are_made_inside(root, tmp_path):
    (root / "srv").symlink_to(tmp_path)  # absolute, and it means the container's own
    inside.make_folders(root, "/srv/one/two")
    assert (root / str(tmp_path).lstrip("/") / "one/two").is_dir()
    assert not (tmp_path / "one").exists()
    (root / "file").write_text("")
    with pytest.raises(Malformed):
        inside.make_folders(root, "/file/below")


def test_special_files_are_not_read(root):
    os.mkfifo(root / "etc/passwd")
    assert inside.read(root, "/etc/passwd") == ""
    assert inside.read(root, "/etc/none") == ""


PASSWD = "root:x:0:0::/root:/bin/sh\nweb:x:101:102::/srv:/bin/sh\nrel:x:7:8::home:/x\nbroken line\nbad:x:1e3:0::/:/\n"
GROUP = "root:x:0:\nweb:x:102:\nlog:x:4:web,other\nmany:x:9:web\n"


@pytest.mark.parametrize(
    ("wanted", "image", "expected"),
    [
        (None, None, User(0, 0, (), "/root")),
        (None, "", User(0, 0, (), "/root")),
        (None, "web", User(101, 102, (4, 9), "/srv")),
        (None, "101", User(101, 102, (4, 9), "/srv")),
        (None, "web:log", User(101, 4, (), "/srv")),
        (None, "web:77", User(101, 77, (), "/srv")),
        (None, "555", User(555, 0, (), "/")),
        (None, "rel", User(7, 8, (), "/")),
        ("101:101", "root", User(101, 101, (), "/srv")),
        ("555", "web", User(555, 555, (), "/")),
    ],
)
def test_users(root, wanted, image, expected):
    (root / "etc/passwd").write_text(PASSWD)
    (root / "etc/group").write_text(GROUP)
    assert users.find(wanted, image, root) == expected


@pytest.mark.parametrize("passwd", ["101:x:0:0::/root:/x\n", "101:x:0:0::/root:/bin/sh\nweb:x:101:102::/srv:/x\n"])
@pytest.mark.parametrize(("wanted", "gid"), [("101", 101), ("101:101", 101), ("101:0", 0), ("101:7", 7)])
def test_an_image_does_not_say_who_the_manifests_user_is(root, passwd, wanted, gid):
    (root / "etc/passwd").write_text(passwd)
    (root / "etc/group").write_text("101:x:0:101\n7:x:0:101\n")
    home = "/srv" if "web" in passwd else "/"
    assert users.find(wanted, "root", root) == User(101, gid, (), home)


def test_a_number_is_never_a_login_name(root):
    (root / "etc/passwd").write_text("101:x:0:0::/root:/bin/sh\n")
    assert users.find(None, "101", root) == User(101, 0, (), "/")


@pytest.mark.parametrize("image", ["nobody", "web:nogroup", "bad", "4294967295", "٣", "-1", "99999999999"])
def test_users_that_are_none(root, image):
    (root / "etc/passwd").write_text(PASSWD)
    (root / "etc/group").write_text(GROUP)
    with pytest.raises(Malformed):
        users.find(None, image, root)


@given(st.text(max_size=80), st.text(max_size=80), st.text(max_size=12))
def test_any_passwd_and_group(tmp_path_factory, passwd, group, image):
    root = tmp_path_factory.mktemp("r")
    (root / "etc").mkdir()
    (root / "etc/passwd").write_bytes(passwd.encode("utf-8", "surrogatepass"))
    (root / "etc/group").write_bytes(group.encode("utf-8", "surrogatepass"))
    try:
        found = users.find(None, image, root)
    except Malformed:
        return
    assert 0 <= found.uid < 2**32 - 1
    assert 0 <= found.gid < 2**32 - 1
