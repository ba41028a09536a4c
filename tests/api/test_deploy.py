"""deploy/: systemd understands the unit, which shuts the service in; the image recipe names what exists."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from casemate.broker.settings import Settings
from casemate.cli import casemate

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "deploy/casemate-broker.service"
RECIPE = ROOT / "deploy/Containerfile"


def lines(name):
    """The unit's values of one setting."""
    return [line.partition("=")[2] for line in UNIT.read_text().splitlines() if line.startswith(f"{name}=")]


@pytest.fixture
def analyze(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")

    def run(*words):
        program = tmp_path / "casemate"  # the check wants the program to exist
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        unit = tmp_path / UNIT.name
        unit.write_text(UNIT.read_text().replace("/usr/bin/casemate", str(program)))
        return subprocess.run(["systemd-analyze", *words, str(unit)], capture_output=True, text=True, check=False)

    return run


def test_systemd_has_nothing_to_say_of_the_unit(analyze):
    done = analyze("verify")
    said = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert not said


def test_the_unit_is_shut_in(analyze):
    done = analyze("security", "--offline=true", "--threshold=20", "--no-pager")
    if "unrecognized" in done.stderr or "Unknown" in done.stderr:
        pytest.skip("this systemd-analyze is older")
    assert done.returncode == 0, done.stdout[-2000:]


def test_the_unit_runs_commands_that_exist():
    for command in (*lines("ExecStart"), *lines("ExecStartPre")):
        words = command.split()[1:]
        assert CliRunner().invoke(casemate, [words[0], "--help"]).exit_code == 0
        assert set(words) <= {"serve", "--home", "/var/lib/casemate/broker", "--check"}


def test_systemd_waits_longer_than_the_broker_drains():
    assert int(lines("TimeoutStopSec")[0]) > Settings(folder=Path("/x")).drain_seconds + 5
    assert lines("User") == ["casemate"]


def test_the_recipe_names_what_exists():
    text = RECIPE.read_text()
    for source in re.findall(r"^COPY (?!--from)(\S+) ", text, re.MULTILINE):
        assert (ROOT / source).exists(), source
    assert re.findall(r"^FROM (\S+)", text, re.MULTILINE) == ["debian:trixie-slim"] * 2
    assert "--require-hashes" in text
    assert text.index("USER 901:901") < text.index("ENTRYPOINT")
    run = re.search(r'^CMD \["serve", "--home", "([^"]+)"\]', text, re.MULTILINE)
    assert run
    assert f"VOLUME {Path(run[1]).parent}" in text


def test_every_locked_package_has_hashes():
    text = (ROOT / "requirements/run.txt").read_text()
    packages = re.findall(r"^([a-z0-9-]+)==", text, re.MULTILINE)
    assert {"uvicorn", "uvloop", "httptools", "starlette", "prometheus-client", "sqlalchemy", "cryptography"} <= set(
        packages
    )
    assert all(re.search(rf"^{name}==[^\n]*\\\n\s+--hash=sha256:", text, re.MULTILINE) for name in packages)
