"""Set-up without touching the machine: programs in a folder of their own stand in for apt and sudo."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def setup(tmp_path, monkeypatch):
    """The script as a module; PATH holds only what the test puts there."""
    spec = importlib.util.spec_from_file_location("setup_script", ROOT / "scripts" / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(module.os, "geteuid", lambda: 0)
    monkeypatch.setattr(module, "has_ensurepip", lambda: True)
    return module


@pytest.fixture
def program(tmp_path):
    """Put a shell script into PATH."""

    def put(name, text="exit 0"):
        path = tmp_path / "bin" / name
        path.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{text}\n")
        path.chmod(0o755)
        return path

    return put


def everything(setup, program):
    for name in setup.PROGRAMS:
        program(name)
    program(setup.QEMU, "echo QEMU emulator version 10.0.2")


def test_nothing_is_missing(setup, program):
    everything(setup, program)
    assert setup.missing_packages() == []
    assert setup.install_packages([]) is False


def test_an_old_qemu_is_missing(setup, program):
    everything(setup, program)
    program(setup.QEMU, "echo QEMU emulator version 7.2.22")
    assert setup.missing_packages() == ["qemu-system-x86"]


def test_without_root_the_one_line_is_printed_and_the_code_is_2(setup, program, monkeypatch, capsys):
    everything(setup, program)
    (Path(os.environ["PATH"]) / "zstd").unlink()
    monkeypatch.setattr(setup.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(setup, "codename", lambda: "trixie")
    monkeypatch.setattr(sys, "argv", ["setup", "--packages"])
    assert setup.main() == 2
    assert "\n  apt-get install -y --no-install-recommends zstd\n" in capsys.readouterr().err


def test_sudo_that_asks_is_not_used(setup, program, monkeypatch):
    monkeypatch.setattr(setup.os, "geteuid", lambda: 1000)
    program("sudo", "exit 1")
    with pytest.raises(setup.Stop):
        setup.root_prefix(["zstd"], [])
    program("sudo")
    assert setup.root_prefix(["zstd"], []) == ["sudo", "-n"]


def test_apt_gets_no_questions_and_an_update_is_tried_twice(setup, program, tmp_path):
    program("env", f'echo "$@" >> {tmp_path}/calls; echo "E: no network" >&2; exit 100')
    with pytest.raises(setup.Stop, match=r"could not read the package lists .*: E: no network") as caught:
        setup.apt([], [], ["update"], "read the package lists")
    assert caught.value.code == 1
    calls = (tmp_path / "calls").read_text().splitlines()
    assert len(calls) == 2
    assert "DEBIAN_FRONTEND=noninteractive" in calls[0]
    with pytest.raises(setup.Stop):
        setup.apt([], [], setup.install(["zstd"]), "install zstd")
    assert len((tmp_path / "calls").read_text().splitlines()) == 3


def test_backports_come_from_the_machines_own_mirror(setup, program, tmp_path):
    program(
        "apt-get", "echo 'bookworm|http://mirror.example/d/|main'; echo 'bookworm-security|http://sec.example/|main'"
    )
    options = setup.backports(tmp_path)
    sources = (tmp_path / "sources.list").read_text().splitlines()
    assert [line.split()[-3:] for line in sources] == [
        ["http://mirror.example/d/", suite, "main"] for suite in ("bookworm", "bookworm-updates", "bookworm-backports")
    ]
    assert f"Dir::Etc::SourceList={tmp_path}/sources.list" in options
    assert "Dir::Etc::SourceParts=/dev/null" in options


def test_another_system_is_told_what_it_needs(setup):
    with pytest.raises(setup.Stop, match="swtpm_setup") as caught:
        setup.codename()  # there is no apt-get in PATH
    assert caught.value.code == 2


def test_an_environment_that_is_up_to_date_is_left_alone(setup, monkeypatch, tmp_path):
    monkeypatch.setattr(setup, "VENV", tmp_path / "venv")
    monkeypatch.setattr(setup, "STAMP", tmp_path / "venv" / "stamp")
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "python").touch()
    (tmp_path / "venv" / "stamp").write_text(setup.fingerprint())
    assert setup.make_environment() is False
    done = []
    monkeypatch.setattr(setup, "run", lambda command, purpose: done.append(purpose))
    (tmp_path / "venv" / "stamp").write_text("older")
    assert setup.make_environment() is True
    assert done == ["make .venv", "install the locked Python packages", "install casemate itself"]


def test_a_failed_download_is_one_sentence(setup):
    with pytest.raises(setup.Stop, match=r"^could not fetch it: the last line$") as caught:
        setup.run(["/bin/sh", "-c", "echo first >&2; echo the last line >&2; exit 1"], "fetch it")
    assert caught.value.code == 1


def test_wrong_use(setup, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["setup", "--what"])
    assert setup.main() == 2
