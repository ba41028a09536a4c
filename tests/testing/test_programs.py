"""Programs that tests need: an installed one is taken; without apt the reason is one to skip, with apt it is none."""

import subprocess

import pytest

from casemate.errors import Unavailable, Unusable
from casemate.testing import postgres, programs


def test_every_program_answers():
    try:
        found = {name: programs.find(name) for name in programs.PROGRAMS if name != "chromium"}
    except programs.Missing as reason:
        pytest.skip(str(reason))
    for name in ("postgres", "initdb", "pg_ctl", "softhsm2-util"):
        assert subprocess.run([found[name], "--version"], capture_output=True, text=True, check=True).stdout
    assert "HAProxy" in subprocess.run([found["haproxy"], "-v"], capture_output=True, text=True, check=True).stdout
    assert found["softhsm"].name == "libsofthsm2.so"


def test_a_server_that_was_killed_has_what_it_acknowledged():
    from sqlalchemy import create_engine

    try:
        with postgres.running() as server:
            engine = create_engine(server.url, pool_pre_ping=True)
            with engine.begin() as tx:
                tx.exec_driver_sql("CREATE TABLE kept AS SELECT 7 AS number")
            server.kill()
            server.start()
            with engine.begin() as tx:
                assert tx.exec_driver_sql("SELECT number FROM kept").scalar() == 7
            engine.dispose()
    except programs.Missing as reason:
        pytest.skip(str(reason))


def test_without_apt_a_program_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("CASEMATE_CACHE", str(tmp_path))
    monkeypatch.setattr(programs, "installed", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(programs.Missing, match="no apt to fetch it"):
        programs.find("haproxy")


def test_an_apt_that_fails_is_no_reason_to_skip(tmp_path, monkeypatch):
    monkeypatch.setenv("CASEMATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(programs, "installed", lambda name: None)
    for name in ("apt-get", "dpkg-deb"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'E: Unable to locate package' >&2\nexit 100\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(Unavailable, match="Unable to locate"):
        programs.find("haproxy")
    assert not list((tmp_path / "cache" / "test-programs").glob("*/starters"))
    with pytest.raises(Unusable, match="no test program"):
        programs.find("no such thing")
