"""The documentation's commands: the tutorial is run as it stands, and the other pages' YAML and commands exist."""

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

import casemate.cli as cli
from casemate.schema import manifest as manifests
from casemate.schema import yaml_reader
from casemate.testing.manifests import APP, PIN, SIGNER

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page, language):
    """(rest of the fence line, text) of each block in a language."""
    found = BLOCK.findall(page.read_text())
    return [(rest.strip(), text) for kind, rest, text in found if kind == language]


def name(page):
    return page.relative_to(ROOT).as_posix()


@pytest.mark.vm
@pytest.mark.timeout(900)
def test_the_tutorial_runs_as_it_stands(tmp_path):
    script = "".join(text for rest, text in blocks(ROOT / "docs/tutorial/first.md", "sh") if rest != "skip")
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "CASEMATE_HOME": str(tmp_path / ".casemate"),
    }

    def shell(text):
        command = ["bash", "-euo", "pipefail", "-c", text]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    try:
        done = shell(script)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        assert "The secret line: hello from inside" in done.stdout
        assert "release.active" in done.stderr
    finally:
        shell("casemate rm --force web || true; casemate rm --force changed || true; casemate down")


def test_the_page_on_collateral_runs_as_it_stands(tmp_path):
    script = "".join(text for rest, text in blocks(ROOT / "docs/how-to/collateral.md", "sh") if rest != "skip")
    script = 'trap "kill \\$(jobs -p) 2>/dev/null || true" EXIT\n' + script  # whatever fails, nobody stays behind
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                   "CASEMATE_HOME": str(tmp_path / ".casemate")}  # fmt: skip
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=tmp_path, env=environment,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert done.stdout.count("ACCEPTED") == 2


def test_the_page_on_policies_runs_as_it_stands(tmp_path):
    script = "".join(text for rest, text in blocks(ROOT / "docs/how-to/policies.md", "sh") if rest != "skip")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=tmp_path, env=environment,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "3 of 3 cases are right" in done.stdout
    assert "missing reference value: tpm/pcr4" in done.stdout


def commands():
    """(page, words) of each call of casemate in a page's shell blocks."""
    for page in PAGES:
        for _, text in blocks(page, "sh"):
            for line in text.replace("\\\n", " ").splitlines():
                for call in re.findall(r"(?:^|[|(;] ?|\$\()casemate ([a-z][^|;)#]*)", line):
                    yield pytest.param(call.split(), id=f"{name(page)}: {call[:40]}")


@pytest.mark.parametrize("words", list(commands()))
def test_commands_and_options_in_the_pages_exist(words):
    command, context = cli.casemate, click.Context(cli.casemate)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        command = command.get_command(context, words.pop(0))
        assert command is not None
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    used = {word.partition("=")[0] for word in words if re.fullmatch(r"--?[a-z][a-z-]*(=.*)?", word)}
    assert used <= known | {"--help"}


def yaml_blocks():
    return [pytest.param(text, id=name(page)) for page in PAGES for _, text in blocks(page, "yaml")]


@pytest.mark.parametrize("text", yaml_blocks())
def test_manifests_in_the_pages_are_good(text):
    filled = text.replace("      -----BEGIN PUBLIC KEY-----\n      …\n", "      KEY\n")
    document, _ = yaml_reader.load(re.sub(r"sha256:…", APP, filled))
    for signer in document["signers"]:
        signer["key"] = SIGNER
    for broker in document["brokers"]:
        broker["key"] = PIN
    assert manifests.from_builtins(document)
