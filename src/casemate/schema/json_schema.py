"""The manifest's JSON Schema (draft 2020-12), for editors and other languages; the rules beyond shape are not in it.

Made from the types in `manifest`, written to docs/reference/manifest.schema.json and compared by `make check`.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from casemate.schema.manifest import STRICT_END, Manifest


def document() -> dict[str, Any]:
    """The schema as plain data."""
    (top,), parts = msgspec.json.schema_components([Manifest], ref_template="#/$defs/{name}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Casemate manifest, casemate/v1",
        **portable(top),
        "$defs": {name: portable(part) for name, part in sorted(parts.items())},
    }


def text() -> str:
    """The schema as it is stored."""
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"


def portable(part: Any) -> Any:
    """Patterns in ECMA's dialect, whose `$` needs no help; docstrings reduced to their first paragraph."""
    if isinstance(part, list):
        return [portable(item) for item in part]
    if not isinstance(part, dict):
        return part
    made = {key: portable(value) for key, value in part.items()}
    if isinstance(made.get("pattern"), str):
        made["pattern"] = made["pattern"].replace(STRICT_END, "$")
    if isinstance(made.get("description"), str):
        made["description"] = " ".join(made["description"].split("\n\n")[0].split())
    return made
