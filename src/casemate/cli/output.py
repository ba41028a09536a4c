"""What every command shares when it prints: facts as text or `--json`, tables, findings, steps with their times.

Rules: facts go to stdout, progress and errors to stderr; with `--json` stdout carries exactly one JSON document, also
when the command fails. Text that came from outside is stripped of control characters, so that it can't drive the
terminal. `rich` is imported only for a table on a terminal.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TextIO, TypeVar

import click

from casemate.errors import CasemateError, Finding, Malformed, Refused

__all__ = ["Steps", "clean", "emit", "error", "findings", "json_option", "note", "table", "wants_json"]

_META = "casemate.json"
_Command = TypeVar("_Command", bound=Callable[..., Any])


def json_option(command: _Command) -> _Command:
    """The `--json` flag, passed to the command as `as_json`; errors of that call are printed as JSON too."""

    def remember(ctx: click.Context, _: click.Parameter, value: bool) -> bool:
        ctx.meta[_META] = value
        return value

    return click.option(
        "--json", "as_json", is_flag=True, is_eager=True, callback=remember, help="Print one JSON document."
    )(command)


def wants_json(ctx: click.Context) -> bool:
    """Whether the call behind `ctx` was made with `--json`."""
    return bool(ctx.meta.get(_META, False))


def clean(value: object) -> str:
    """Printable text of a value: control characters but newline and tab, and bidi overrides, become `?`."""
    return "".join(c if c in "\n\t" or _harmless(c) else "?" for c in str(value))


def _harmless(character: str) -> bool:
    code = ord(character)
    return not (code < 0x20 or 0x7F <= code <= 0x9F or 0x202A <= code <= 0x202E or 0x2066 <= code <= 0x2069)


def emit(value: Any, *, as_json: bool, text: Callable[[], None] | None = None) -> None:
    """Print facts: `value` as one JSON document, or else what `text` prints (by default `key: value` lines)."""
    if as_json:
        click.echo(json.dumps(value, indent=2, ensure_ascii=False))
    elif text is not None:
        text()
    elif isinstance(value, dict):
        width = max((len(str(key)) for key in value), default=0)
        for key, item in value.items():
            click.echo(f"{key + ':':<{width + 1}} {clean(_flat(item))}")
    else:
        click.echo(clean(_flat(value)))


def _flat(item: Any) -> str:
    return json.dumps(item, ensure_ascii=False) if isinstance(item, dict | list | tuple | bool) else str(item)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table: drawn on a terminal, aligned columns elsewhere (one row a line, for grep and awk)."""
    cells = [[clean(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        drawn = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
        for row in cells:
            drawn.add_row(*(Text(cell) for cell in row))
        Console().print(drawn)
        return
    lines = [list(columns), *cells]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def findings(items: Iterable[Finding], *, err: bool = False, passed: bool = True) -> None:
    """Each rule on its own lines: ✓ rule, or ✗ rule with expected, found and what to do."""
    good, bad = _marks(sys.stderr if err else sys.stdout)
    for item in items:
        if item.ok:
            if passed:
                click.echo(f"  {good} {clean(item.rule)}: {clean(item.found)}", err=err)
            continue
        click.echo(f"  {bad} {clean(item.rule)}", err=err)
        for label, value in (("expected", item.expected), ("found", item.found), ("what to do", item.hint)):
            if value:
                click.echo(f"      {label + ':':<11} {clean(value)}", err=err)


def _marks(stream: TextIO) -> tuple[str, str]:
    """The marks of a passed and of a failed rule; letters where the stream cannot show them."""
    try:
        "✓✗".encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return "ok", "NO"
    return "✓", "✗"


def note(text: str) -> None:
    """One line of progress or advice, on stderr. Where nobody reads it any more, the work goes on all the same."""
    with suppress(OSError, ValueError):
        click.echo(clean(text), err=True)


def error(problem: CasemateError, *, as_json: bool) -> None:
    """An error as a sentence with its hint and findings on stderr, or as one JSON document on stdout."""
    found = problem.findings if isinstance(problem, Refused) else ()
    places = problem.problems if isinstance(problem, Malformed) else ()
    if as_json:
        document: dict[str, Any] = {"error": str(problem), "kind": type(problem).__name__, "hint": problem.hint}
        document["reasons"] = [item.as_json() for item in found]
        if places:
            document["problems"] = [place.as_json() for place in places]
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
        return
    if found:
        click.echo("refused" if not problem.args else clean(str(problem)).partition(": ")[0] + ":", err=True)
        findings(found, err=True, passed=False)
        return
    click.echo(f"error: {clean(str(problem).partition(chr(10))[0] if places else problem)}", err=True)
    for place in places:
        click.echo(f"  ✗ {clean(place)}", err=True)
        if place.hint:
            click.echo(f"      what to do: {clean(place.hint)}", err=True)
    if problem.hint and not places:
        click.echo(f"what to do: {clean(problem.hint)}", err=True)


class Steps:
    """Numbered steps with their times: printed on stderr as they go, kept in `done` for a report.

    ``with steps.step("Boot the VM") as step: step.note("accelerator: tcg")``. `total` of 0 leaves the count out.
    """

    def __init__(self, total: int = 0, *, quiet: bool = False) -> None:
        self.total = total
        self.quiet = quiet
        self.done: list[dict[str, Any]] = []

    def note(self, text: str) -> None:
        """A line of detail under the current step."""
        if not self.quiet:
            note(f"      {text}")

    @contextmanager
    def step(self, title: str) -> Iterator[Steps]:
        """One step; its seconds are printed when it ends, also when it fails (and the error goes on)."""
        number = len(self.done) + 1
        label = f"[{number}/{self.total}]" if self.total else f"[{number}]"
        if not self.quiet:
            note(f"{label} {title}")
        begun, verdict = time.monotonic(), "failed"
        try:
            yield self
            verdict = "ok"
        finally:
            seconds = round(time.monotonic() - begun, 2)
            self.done.append({"step": number, "title": title, "seconds": seconds, "verdict": verdict})
            if not self.quiet:
                note(f"      {verdict} in {seconds:.1f} s")
