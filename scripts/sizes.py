"""Size gate: files up to 400 lines (tests 500), functions up to 60, commands up to 40.

A long file or function asks which second idea lives in it. Exemptions, each with its reason, stand in
scripts/exemptions.toml and nowhere else; one that is no longer needed is an error too.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("src", "tests", "scripts", "examples", "bench", "guest-image")
FILE, TEST_FILE, FUNCTION, COMMAND = 400, 500, 60, 40


def main() -> int:
    """Print what is too long."""
    exempt: dict[str, str] = tomllib.loads((ROOT / "scripts" / "exemptions.toml").read_text())["sizes"]
    found = {place: text for path in sources() for place, text in measure(path)}
    for place, text in found.items():
        if place not in exempt:
            print(text)
    stale = [place for place in exempt if place not in found]
    for place in stale:
        print(f"scripts/exemptions.toml: {place} needs no exemption any more")
    return 1 if stale or set(found) - set(exempt) else 0


def sources() -> Iterator[Path]:
    """Python files of the project."""
    for folder in FOLDERS:
        yield from sorted((ROOT / folder).rglob("*.py"))


def measure(path: Path) -> Iterator[tuple[str, str]]:
    """(place, sentence) for the file and each function in it that is too long."""
    name = path.relative_to(ROOT).as_posix()
    text = path.read_text(encoding="utf-8")
    lines, most = text.count("\n"), TEST_FILE if name.startswith("tests/") else FILE
    if lines > most:
        yield name, f"{name}: {lines} lines, at most {most}"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            limit = COMMAND if "/cli/" in name and is_command(node) else FUNCTION
            if length > limit:
                yield f"{name}:{node.name}", f"{name}:{node.lineno} {node.name}: {length} lines, at most {limit}"


def is_command(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a decorator of the function is `something.command`."""
    return any("command" in ast.unparse(decorator).partition("(")[0] for decorator in node.decorator_list)


if __name__ == "__main__":
    sys.exit(main())
