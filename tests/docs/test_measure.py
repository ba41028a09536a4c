"""The how-to on measuring: its Python runs, and every option that its commands use exists."""

from __future__ import annotations

import re
from pathlib import Path

from casemate.cli import measure

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "measure.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_the_examples_run(capsys):
    names: dict[str, object] = {}
    for code in blocks("python"):
        exec(code, names)
    printed = capsys.readouterr().out.split()
    assert len(printed[0]) == 96
    assert printed[1] == "96"


def test_the_commands_options_exist():
    known = {name for parameter in measure.measure.params for name in parameter.opts}
    used = set()
    for line in "\n".join(blocks("sh")).replace("\\\n", " ").splitlines():
        if line.startswith("casemate measure"):
            used |= set(re.findall(r" (--[a-z-]+)", line))
    assert used
    assert used <= known
