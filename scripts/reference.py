"""The generated pages of docs/reference: the command line's help and the manifest's schema.

Without arguments compares them with what is stored (the gate); with --write writes them (`make docs`).
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from casemate.cli import casemate
from casemate.schema import json_schema

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "reference"
HEAD = """# Command line

Generated from the commands' own help by `make docs`. Exit codes: 0 done, 1 refused or failed, 2 wrong use or unusable
input, 130 interrupted. With `--json` standard output carries one JSON document, also when a command fails.
"""


def main() -> int:
    """Write or compare each page."""
    pages = {"cli.md": command_line(), "manifest.schema.json": json_schema.text()}
    stale = 0
    for name, text in pages.items():
        path = FOLDER / name
        stored = path.read_text(encoding="utf-8") if path.exists() else ""
        if stored == text:
            continue
        if "--write" in sys.argv:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            continue
        stale += 1
        print(f"docs/reference/{name} is not what `make docs` writes:")
        print("".join(list(difflib.unified_diff(stored.splitlines(True), text.splitlines(True), "stored", "now"))[:30]))
    return 1 if stale else 0


def command_line() -> str:
    """One section per command, nested ones too."""
    sections = (f"## {name}\n\n```\n{text}\n```\n" for name, text in helps(casemate, "casemate", None))
    return "\n".join([HEAD, *sections])


def helps(command: click.Command, name: str, parent: click.Context | None) -> Iterator[tuple[str, str]]:
    """(full name, help text) of a command and all below it."""
    settings = {**command.context_settings, "terminal_width": 100, "max_content_width": 100}
    with click.Context(command, info_name=name, parent=parent, **settings) as context:
        yield context.command_path, command.get_help(context).rstrip()
        if isinstance(command, click.Group):
            for child in command.list_commands(context):
                found = command.get_command(context, child)
                if found is not None and not found.hidden:
                    yield from helps(found, child, context)


if __name__ == "__main__":
    sys.exit(main())
