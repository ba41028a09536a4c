"""Key files: whole or not at all, and nobody else's."""

import os

import pytest

from casemate.drivers import keyfiles
from casemate.errors import Unusable


def test_made_once_and_private(tmp_path):
    path = tmp_path / "deep" / "key"
    assert keyfiles.once(path, lambda: b"one") == b"one"
    assert keyfiles.once(path, lambda: b"two") == b"one"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o077 == 0
    assert [p.name for p in path.parent.iterdir()] == ["key"]


def test_a_key_that_is_open_to_others(tmp_path):
    path = tmp_path / "key"
    path.write_bytes(b"x")
    path.chmod(0o640)
    with pytest.raises(Unusable, match="open to other users"):
        keyfiles.read(path)


def test_missing_and_unwritable(tmp_path):
    with pytest.raises(Unusable, match="cannot be read"):
        keyfiles.read(tmp_path / "none")
    (tmp_path / "dir").mkdir()
    with pytest.raises(Unusable, match="not a regular file"):
        keyfiles.write(tmp_path / "dir", b"x")


def test_a_leftover_of_a_killed_writer_does_no_harm(tmp_path):
    (tmp_path / f".key.{os.getpid()}.tmp").write_bytes(b"half")
    keyfiles.write(tmp_path / "key", b"whole")
    assert keyfiles.read(tmp_path / "key") == b"whole"
