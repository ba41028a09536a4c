"""The documentation's commands: the tutorial is run as it stands, and the other pages' YAML and commands exist."""

import re

import click
import pytest
from tests.docs import shell
from tests.docs.shell import ROOT, blocks

import casemate.cli as cli
from casemate.schema import manifest as manifests
from casemate.schema import yaml_reader
from casemate.testing.manifests import APP, PIN, SIGNER

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def name(page):
    return page.relative_to(ROOT).as_posix()


@pytest.mark.vm
@pytest.mark.timeout(900)
def test_the_tutorial_runs_as_it_stands(tmp_path):
    def run(text):
        return shell.run(text, tmp_path, PYTHONPATH=str(ROOT))

    try:
        done = run(shell.script(ROOT / "docs/tutorial/first.md"))
        shell.good(done)
        assert "The secret line: hello from inside" in done.stdout
        assert "release.active" in done.stderr
    finally:
        run("casemate rm --force web || true; casemate rm --force changed || true; casemate down")


def test_the_page_on_collateral_runs_as_it_stands(tmp_path):
    told = shell.good(shell.run(shell.script(ROOT / "docs/how-to/collateral.md"), tmp_path))
    assert told.count("ACCEPTED") == 2


def test_the_page_on_policies_runs_as_it_stands(tmp_path):
    told = shell.good(shell.run(shell.script(ROOT / "docs/how-to/policies.md"), tmp_path))
    assert "3 of 3 cases are right" in told
    assert "missing reference value: tpm/pcr4" in told


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
