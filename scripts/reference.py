"""The generated pages of docs/reference: the command line's help, the manifest's schema, the broker's API and settings.

Without arguments compares them with what is stored (the gate); with --write writes them (`make docs`).
"""

from __future__ import annotations

import difflib
import html
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import reference_api as api

from casemate.cli import casemate
from casemate.schema import json_schema

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "reference"
HEAD = """# Command line

Generated from the commands' own help by `make docs`. Exit codes: 0 done, 1 refused or failed, 2 wrong use or unusable
input, 130 interrupted. With `--json` standard output carries one JSON document, also when a command fails.
"""


MANIFEST_HEAD = """# Manifest

Generated from the types by `make docs`; the same as [JSON Schema](manifest.schema.json). Beyond the shape: names are
unique, paths are absolute and plain, a secret goes to exactly one of `env` and `file`, mounts name volumes of the
manifest, keys of images and volumes serve nothing else. `casemate manifest check` says everything that is wrong.
"""


def main() -> int:
    """Write or compare each page."""
    pages = {
        "cli.md": command_line(),
        "manifest.md": manifest_page(json_schema.document()),
        "manifest.schema.json": json_schema.text(),
        "api.md": api.page(),
        "settings.md": api.settings(),
    }
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


def manifest_page(schema: dict[str, Any]) -> str:
    """One section per part of the manifest, in the order in which they are first used."""
    parts: dict[str, Any] = schema["$defs"]
    order, waiting = [], ["Manifest"]
    while waiting:
        name = waiting.pop(0)
        if name not in order:
            order.append(name)
            waiting += re.findall(r"#/\$defs/(\w+)", str(parts[name]))
    return "\n".join([MANIFEST_HEAD, *(section(name, parts[name]) for name in order)])


def section(name: str, part: dict[str, Any]) -> str:
    """Heading, meaning and the table of fields of one part."""
    required = part.get("required", [])
    rows = [
        f"| `{field}` | {kind(value)} | {'required' if field in required else default(value)} |"
        for field, value in part["properties"].items()
    ]
    return "\n".join(
        [
            f"## {name}",
            "",
            part.get("description", ""),
            "",
            "| field | type | default |",
            "| --- | --- | --- |",
            *rows,
            "",
        ]
    )


def kind(value: dict[str, Any]) -> str:
    """The type of a field in words."""
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    inner = [c for c in [*value.get("anyOf", []), *value.get("allOf", [])] if c.get("type") != "null"]
    if inner:
        return kind(inner[0])
    if "items" in value:
        return f"list of {kind(value['items'])}"
    if "enum" in value:
        return " or ".join(f"`{choice}`" for choice in value["enum"])
    words = {"string": "text", "integer": "whole number", "boolean": "true or false"}.get(value["type"], value["type"])
    if "minimum" in value and "maximum" in value:
        words += f", {value['minimum']} to {value['maximum']}"
    return html.escape(str(value.get("description") or words))


def default(value: dict[str, Any]) -> str:
    """The default of an optional field."""
    found = value.get("default")
    return "none" if found in (None, (), [], {}, "") else f"`{json.dumps(found)}`"


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
