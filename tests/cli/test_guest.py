"""`casemate guest`, as typed: facts as text and JSON, and what it says when it cannot answer."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

import casemate.cli as cli

pytestmark = [pytest.mark.tools, pytest.mark.timeout(300)]


def _run(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        cli.main(["guest", *arguments])
    done = capfd.readouterr()
    assert isinstance(caught.value.code, int)
    return caught.value.code, done.out, done.err


def test_build_names_the_folder_and_the_registers(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, _ = _run(capfd, "build", "--json")
    assert code == 0
    facts = json.loads(out)
    folder = Path(facts["folder"])
    for name, digest in facts["files"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert facts["lock_committed"] is True
    assert set(facts["measurements"]["tpm"]) == {f"pcr{n}" for n in (0, 2, 3, 4, 6, 7, 9, 14)}
    code, out, _ = _run(capfd, "build")
    assert out.splitlines()[0] == facts["folder"]
    assert facts["measurements"]["tpm"]["pcr9"] in out


def test_measure_binds_the_initdata(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    document = tmp_path / "initdata.toml"
    document.write_bytes(b"a document")
    code, out, _ = _run(capfd, "measure", "--initdata", str(document), "--json")
    assert code == 0
    digest = hashlib.sha256(b"a document").digest()
    assert json.loads(out)["values"]["pcr8"] == hashlib.sha256(bytes(32) + digest).hexdigest()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tee", "nope"], "is not known"),
        (["--tee", "snp"], "kernel's hashes"),
        (["--vcpus", "65"], "1<=x<=64"),
        (["--vcpus", "0"], "1<=x<=64"),
    ],
)
def test_what_cannot_be_measured_is_said(capfd: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    code, out, err = _run(capfd, "measure", *arguments)
    assert code == 2
    assert message in err
    assert not out


def test_an_existing_folder_is_not_built_into(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = _run(capfd, "build", "--into", str(tmp_path))
    assert code == 2
    assert "exists" in err
