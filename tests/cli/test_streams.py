"""Standard streams that are closed, full or cut off: the exit code never says what was not judged."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = [sys.executable, "-m", "casemate"]


def run(words: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", words, "bash", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_a_reader_that_has_gone_is_no_refusal() -> None:
    done = run('"$@" | true; exit "${PIPESTATUS[0]}"', *PROGRAM, "verify", "--show-policy")
    assert done.returncode in (0, 141)  # 0 when all was written before the reader went
    assert "Traceback" not in done.stderr


def test_a_reader_that_never_was_there_is_no_refusal() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [*PROGRAM, "verify", "--show-policy"], stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False
        )
    finally:
        os.close(writer)
    assert done.returncode == 141
    assert done.stderr == b""


def test_without_any_stdout_the_verdict_is_the_exit_code() -> None:
    assert run('exec "$@" >&-', *PROGRAM, "verify", "--show-policy").returncode == 0
    done = run('exec "$@" >&- 2>&-', *PROGRAM, "verify", "/nowhere/at/all")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


@pytest.mark.parametrize(
    "arguments",
    [
        ["measure", "--tee", "snp", "--firmware-only", "--firmware"],
        ["reference", "make", "--name", "x", "--key"],
        ["collateral", "import", "--store", "{folder}/store"],
        ["collateral", "fetch", "--store", "{folder}/store", "--url", "https://kds.example/x", "--settings"],
        ["verify", "--service", "localhost:1", "--app", "x", "--trust"],
        ["verify", "{folder}", "--policy"],
        ["verify"],
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_a_pipe_where_a_file_is_wanted_is_told_at_once(arguments: list[str], tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    words = [word.format(folder=tmp_path) for word in arguments]
    if words[:2] == ["reference", "make"]:
        words.insert(2, str(pipe))
    done = subprocess.run([*PROGRAM, *words, str(pipe)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done.stderr
    assert "not a regular file" in done.stdout + done.stderr


def test_what_is_no_regular_file_is_not_replaced(tmp_path: Path) -> None:
    from casemate.drivers import keyfiles
    from casemate.errors import Unusable

    pipe, link, target = tmp_path / "pipe", tmp_path / "link", tmp_path / "target"
    os.mkfifo(pipe)
    target.write_bytes(b"old")
    link.symlink_to(target)
    with pytest.raises(Unusable, match="not a regular file"):
        keyfiles.write(pipe, b"new")
    with pytest.raises(Unusable):
        keyfiles.write(tmp_path / "absent" / "file", b"new", parents=False)
    keyfiles.write(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


def test_a_folder_of_something_else_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    done = subprocess.run([*PROGRAM, "collateral", "show", str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "something else" in done.stderr


def with_build(body: str) -> list[str]:
    """`casemate guest build` whose build is `body`, a function's lines that may use `note`."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return [
        sys.executable, "-c",
        f"import sys, time\nimport casemate.cli as cli\nfrom casemate.host import guestimage\n"
        f"def build(note):\n{lines}\nguestimage.ensure = build\ncli.main(['guest', 'build'])",
    ]  # fmt: skip


def test_a_broken_pipe_of_our_own_is_told() -> None:
    """Only a stdout that nobody reads ends a command in silence: not a child or a peer that went away."""
    done = run('"$@"', *with_build("raise BrokenPipeError(32, 'Broken pipe')"))
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "error: Broken pipe\n")


def test_progress_that_nobody_reads_ends_no_build(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    made = tmp_path / "made"
    body = f"note('one')\nnote('two')\nopen({str(made)!r}, 'w').close()\nsys.exit(0)"
    done = subprocess.run(with_build(body), stdout=subprocess.PIPE, stderr=writer, timeout=60, check=False)
    os.close(writer)
    assert made.exists()
    assert done.returncode == 0


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_build_that_is_told_to_end_says_so_and_tidies_up(name: str, tmp_path: Path) -> None:
    tidied = tmp_path / "tidied"
    body = f"try:\n    note('begun')\n    time.sleep(60)\nfinally:\n    open({str(tidied)!r}, 'w').close()"
    child = subprocess.Popen(with_build(body), stderr=subprocess.PIPE, text=True)
    assert child.stderr is not None
    assert child.stderr.readline() == "begun\n"
    child.send_signal(getattr(signal, name))
    assert child.stderr.read() == f"error: ended by {name} before it was done\n"
    assert child.wait(30) == 1
    assert tidied.exists()
    child.stderr.close()


def test_leaving_with_a_text_is_told() -> None:
    done = run('"$@"', *with_build("sys.exit('something is wrong')"))
    assert (done.returncode, done.stderr) == (1, "error: something is wrong\n")
