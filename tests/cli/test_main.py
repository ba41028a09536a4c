"""The command line as a whole: errors, exit codes, help, and what is imported for it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import casemate.cli as cli
from casemate.cli import output
from casemate.drivers.brokerclient import Admin
from casemate.errors import Finding, Malformed, Problem, Refused, Unavailable, Unusable


@pytest.fixture
def run(monkeypatch, capfd):
    """Call `casemate` in this process with one extra command `t` that raises what it is given."""

    def call(*arguments, error=None):
        @click.command()
        @output.json_option
        def t(as_json):
            if error:
                raise error
            output.emit({"a": 1}, as_json=as_json)

        monkeypatch.setattr(sys.modules[__name__], "t", t, raising=False)
        monkeypatch.setitem(cli.COMMANDS, "t", (f"{__name__}:t", "A command for tests."))
        monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
        with pytest.raises(SystemExit) as caught:
            cli.main(list(arguments))
        done = capfd.readouterr()
        return caught.value.code, done.out, done.err

    return call


FINDINGS = [Finding("tpm.nonce", "aa", "bb", "ask again"), Finding("tpm.key", "k", "k", ok=True)]


def test_a_refusal_is_told_rule_by_rule(run):
    code, out, err = run("t", error=Refused(FINDINGS))
    assert (code, out) == (1, "")
    assert "✗ tpm.nonce" in err
    assert "expected:   aa" in err
    assert "what to do: ask again" in err
    assert "tpm.key" not in err


def test_a_refusal_as_json_is_one_document_on_stdout(run):
    code, out, err = run("t", "--json", error=Refused(FINDINGS))
    told = json.loads(out)
    assert (code, err) == (1, "")
    assert told["kind"] == "Refused"
    assert [reason["result"] for reason in told["reasons"]] == ["fail", "pass"]


def test_malformed_lists_the_places_and_exits_2(run):
    error = Malformed("manifest: 1 problem\n  x", problems=[Problem("a.b", "wrong", "mend it", 7)])
    code, out, err = run("t", error=error)
    assert (code, out) == (2, "")
    assert err.splitlines() == ["error: manifest: 1 problem", "  ✗ line 7, a.b: wrong", "      what to do: mend it"]
    assert json.loads(run("t", "--json", error=error)[1])["problems"][0]["line"] == 7


def test_other_errors_are_a_sentence_and_a_hint(run):
    assert run("t", error=Unavailable("the broker is down", hint="start it")) == (
        1,
        "",
        "error: the broker is down\nwhat to do: start it\n",
    )


def test_foreign_text_cannot_drive_the_terminal(run):
    _, _, err = run("t", error=Refused([Finding("r", "x", "\x1b[2Jgone\u202e", "")]))
    assert "\x1b" not in err
    assert "\u202e" not in err


def test_facts(run):
    assert run("t") == (0, "a: 1\n", "")
    assert json.loads(run("t", "--json")[1]) == {"a": 1}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_an_interrupt_exits_130_without_a_trace(run, error):
    code, out, err = run("t", error=error)
    assert (code, out) == (130, "")
    assert err.strip() == "interrupted"


def test_wrong_use_exits_2(run):
    assert run("nothing")[0] == 2
    assert "did you mean 'manifest'" in run("manfest")[2]
    assert run("t", "--what")[0] == 2


def test_a_reader_that_has_seen_enough_is_no_error():
    program = [sys.executable, "-m", "casemate", "manifest", "schema"]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=20) == 0


def test_an_error_of_the_program_itself_is_told_as_one(run, monkeypatch):
    monkeypatch.delenv("CASEMATE_DEBUG", raising=False)
    code, out, err = run("t", error=ZeroDivisionError())
    assert (code, out) == (1, "")
    assert "internal error: ZeroDivisionError at " in err
    assert "please report" in err
    assert "Traceback" not in err
    told = json.loads(run("t", "--json", error=KeyError("x"))[1])
    assert told["kind"] == "Internal"
    monkeypatch.setenv("CASEMATE_DEBUG", "1")
    assert "Traceback" in run("t", error=ZeroDivisionError())[2]


@pytest.mark.parametrize(
    ("error", "words", "code"),
    [
        (NotADirectoryError(20, "Not a directory", "/a/b"), "/a/b: Not a directory", 2),
        (UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates not allowed"), "not UTF-8", 2),
        (ValueError("no key in it"), "no key in it", 2),
        (MemoryError(), "not enough memory", 1),
    ],
)
def test_what_nobody_foresaw_is_a_sentence(run, error, words, code):
    got, out, err = run("t", error=error)
    assert (got, out) == (code, "")
    assert words in err
    got, out, err = run("t", "--json", error=error)
    assert (got, err) == (code, "")
    assert words in json.loads(out)["error"]


@pytest.mark.parametrize("words", [["nothing"], ["t", "--what"], ["app", "show"], ["app"], ["verify"], ["run", "x"]])
def test_wrong_use_as_json_is_one_document(run, words):
    code, out, err = run(*words, "--json")
    told = json.loads(out)
    assert (code, err) == (2, "")
    assert (told["kind"], told["reasons"]) == ("Usage", [])
    assert told["error"]
    assert told["hint"].endswith("--help")


def test_a_full_disk_behind_stdout_is_a_sentence():
    for words in (["manifest", "schema"], ["manifest", "schema", "--json"], ["status", "--what", "--json"]):
        with Path("/dev/full").open("w") as full:
            program = [sys.executable, "-m", "casemate", *words]
            done = subprocess.run(program, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        assert "Exception ignored" not in done.stderr


def test_every_command_of_the_table_exists_and_says_what_it_does():
    context = click.Context(cli.casemate, info_name="casemate")
    for name, (_, line) in cli.COMMANDS.items():
        command = cli.casemate.get_command(context, name)
        assert command is not None
        assert command.name in {name, name.removesuffix("_")}
        assert line.endswith(".")
        assert command.help, name


def test_help_lists_every_command_with_its_line():
    text = CliRunner().invoke(cli.casemate, ["--help"]).output
    for name, (_, line) in cli.COMMANDS.items():
        assert f"  {name} " in text
        assert line in text


HEAVY = {"cryptography", "msgspec", "yaml", "rich", "starlette", "sqlalchemy", "uvicorn", "asyncio", "ssl", "socket"}


@pytest.mark.parametrize("name", ["", *sorted(cli.COMMANDS)])
def test_help_imports_nothing_heavy(name):
    """Start-up is bounded by what is imported, which unlike time can be asserted."""
    words = [name, "--help"] if name else ["--help"]
    code = (
        "import sys\nfrom casemate.cli import main\n"
        f"try:\n    main({words!r})\nexcept SystemExit as e:\n    assert e.code == 0\n"
        f"print('HEAVY', sorted(set(sys.modules) & {HEAVY!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY []"


WAITING = """
import time
import click
import casemate.cli as cli

@click.command()
def t():
    print("on", flush=True)
    time.sleep(60)

if __name__ == "__main__":
    cli.COMMANDS["t"] = ("wait:t", "Wait.")
    cli.main()
"""


def test_ctrl_c_in_a_real_process(tmp_path):
    (tmp_path / "wait.py").write_text(WAITING)
    process = subprocess.Popen(
        [sys.executable, "wait.py", "t"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert process.stdout.readline() == "on\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err.strip() == "interrupted"


def test_steps_keep_times_and_verdicts(capfd):
    steps = output.Steps(2)
    with steps.step("first") as step:
        step.note("detail")
    with pytest.raises(ValueError), steps.step("second"):
        raise ValueError
    assert [(s["title"], s["verdict"]) for s in steps.done] == [("first", "ok"), ("second", "failed")]
    shown = capfd.readouterr().err
    assert "[1/2] first" in shown
    assert "detail" in shown


def test_tables_are_plain_columns_when_piped(capfd):
    output.table(["NAME", "STATE"], [["web", "running"], ["a-long-name", "\x1b[31mred"]])
    assert capfd.readouterr().out == "NAME         STATE\nweb          running\na-long-name  ?[31mred\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["status"], "is missing"),
        (["app", "list"], "is missing"),
        (["manifest", "from", "nope.yaml", "--app", "x", "--signer", "binary"], "UTF-8"),
        (["init", "binary"], "binary"),
        (["guest", "build", "--into", "/proc/x/g"], "/proc/x"),
    ],
)
def test_spoilt_files_are_sentences(tmp_path, words, said):
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / "context.json").write_text("{}")
    (tmp_path / "binary").write_bytes(b"\x80\xff\x00")
    done = subprocess.run(
        [sys.executable, "-m", "casemate", *words],
        cwd=tmp_path, env={**os.environ, "CASEMATE_HOME": str(home)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "internal error" not in done.stderr


def test_a_spoilt_admin_key_is_a_sentence(tmp_path):
    key = tmp_path / "admin.key"
    key.write_bytes(b"junk")
    key.chmod(0o600)
    with pytest.raises(Unusable, match="not a private key"):
        Admin("https://127.0.0.1:1", "sha256:" + "0" * 64, key)
