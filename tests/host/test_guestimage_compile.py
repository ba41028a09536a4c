"""Byte code of the guest's root: by the guest's Python, of the root's own files and of nothing else."""

import pytest

from casemate.drivers import debs, tools
from casemate.host.guestimage import root as guest_root

NEEDED = ("libc6", "libexpat1", "libpython3.13-minimal", "libpython3.13-stdlib", "python3.13-minimal", "zlib1g")


@pytest.mark.tools
@pytest.mark.timeout(300)
def test_byte_code_follows_no_link_out_of_the_root(tmp_path):
    """Debian links sitecustomize.py to an absolute path in /etc: that file is the building machine's, if it has one."""
    packages = [p for p in debs.parse_lock((tools.recipe_folder() / "packages.lock").read_text()) if p.name in NEEDED]
    root = tmp_path / "root"
    guest_root.unpack_root(packages, debs.fetch(packages), root)
    outside = tmp_path / "outside.py"
    outside.write_text("x = 'from the building machine'\n")
    modules = root / "usr/lib/python3"
    modules.mkdir()
    (modules / "linked.py").symlink_to(outside)
    (modules / "own.py").write_text("x = 1\n")
    (modules / "inside.py").symlink_to("own.py")
    (root / "usr/lib/casemate").mkdir()
    guest_root._compile(root)
    made = {file.name for file in (modules / "__pycache__").iterdir()}
    assert made == {"own.cpython-313.pyc", "inside.cpython-313.pyc"}
    for file in modules.rglob("*.pyc"):
        assert file.read_bytes()[4:8] == b"\x01\0\0\0"  # by hash, never checked (PEP 552): no time in it
        assert str(tmp_path).encode() not in file.read_bytes()
