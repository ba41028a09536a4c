"""What a user names on the command line is bounded: names, numbers, and files without an end."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from casemate.cli import image_arguments
from casemate.drivers import brokerclient, http, paths
from casemate.errors import Unavailable, Unusable
from casemate.host import launch
from casemate.host.state import State
from casemate.host.workloads import Workload


@pytest.mark.parametrize("name", ["-x", "a/b", "a b", "a" * 64, ".x", "x\n", "0123456789ab"])
def test_names_that_no_workload_gets(name):
    with pytest.raises(Unusable):
        launch._name(name, "web", [State(id="0123456789ab", name="other")])
    assert launch._name("web-1.x", "web", []) == "web-1.x"


@pytest.mark.parametrize(
    "words", [["--timeout", "nan"], ["--timeout", "inf"], ["--timeout", "0"], ["--memory", "1048577"]]
)
def test_numbers_out_of_bounds(tmp_path, words):
    manifest = tmp_path / "m.json"
    manifest.write_text("{}")
    assert _casemate(tmp_path, "run", manifest, *words).returncode == 2


@pytest.mark.parametrize(
    "words",
    [
        ["verify", "--service", "127.0.0.1:1", "--app", "x", "--trust", "/dev/zero"],
        ["release", "add", "x", "/dev/zero"],
        ["run", "/dev/zero"],
        ["manifest", "from", "x", "--app", "x", "--signer", "/dev/zero"],
        ["guest", "measure", "--initdata", "/dev/zero"],
        ["measure", "--tee", "snp", "--firmware", "/dev/zero", "--firmware-only"],
    ],
)
def test_files_without_an_end(tmp_path, words):
    done = _casemate(tmp_path, *words)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_a_busy_server_in_front_of_the_broker(monkeypatch):
    monkeypatch.setattr(http, "request", lambda *_, **__: http.Response(503, {}, b"Service Unavailable"))
    with pytest.raises(Unavailable, match="busy"):
        brokerclient.info("https://127.0.0.1:1", "sha256:" + "0" * 64)


def test_the_root_directory_is_no_home(monkeypatch):
    monkeypatch.setenv("CASEMATE_HOME", "/")
    with pytest.raises(Unusable, match="root directory") as caught:
        paths.home()
    assert "chmod" not in caught.value.hint


def test_no_advice_to_write_over_a_device():
    with pytest.raises(Unusable) as caught:
        image_arguments.key_file(Path("/dev/null"))
    assert "urandom" not in caught.value.hint


def test_a_workload_that_is_gone_is_not_minded(tmp_path):
    assert not Workload(tmp_path / "gone").minded()


def _casemate(folder, *words):
    home = folder / "home"
    home.mkdir(mode=0o700, exist_ok=True)
    return subprocess.run(
        [sys.executable, "-m", "casemate", *map(str, words)],
        env={**os.environ, "CASEMATE_HOME": str(home)}, capture_output=True, text=True, check=False, timeout=60,
        preexec_fn=lambda: __import__("resource").setrlimit(9, (2 << 30, 2 << 30)),
    )  # fmt: skip
