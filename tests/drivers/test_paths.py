"""State and cache folders."""

import pytest

from casemate.drivers import paths
from casemate.errors import Unusable


def test_home_is_private(tmp_path, monkeypatch):
    monkeypatch.delenv("CASEMATE_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    assert paths.home() == tmp_path / ".casemate"
    assert (tmp_path / ".casemate").stat().st_mode & 0o777 == 0o700
    monkeypatch.setenv("CASEMATE_HOME", "elsewhere/deep")
    assert paths.home() == tmp_path / "elsewhere" / "deep"


def test_an_open_home_with_something_in_it_is_refused(tmp_path, monkeypatch):
    folder = tmp_path / "home"
    folder.mkdir()
    folder.chmod(0o755)
    monkeypatch.setenv("CASEMATE_HOME", str(folder))
    assert paths.home().stat().st_mode & 0o777 == 0o700  # it was empty, so it could be closed
    folder.chmod(0o750)
    (folder / "key").touch()
    with pytest.raises(Unusable, match="open to other users"):
        paths.home()


def test_a_file_in_the_way(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CASEMATE_HOME", str(tmp_path / "file"))
    with pytest.raises(Unusable):
        paths.home()
    monkeypatch.setenv("CASEMATE_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(Unusable):
        paths.cache()


def test_cache(tmp_path, monkeypatch):
    monkeypatch.delenv("CASEMATE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert paths.cache() == tmp_path / "xdg" / "casemate"
    monkeypatch.setenv("CASEMATE_CACHE", str(tmp_path / "own"))
    assert paths.cache() == tmp_path / "own"
