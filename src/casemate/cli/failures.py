"""The last handler of the command line: what no command foresaw still ends as a sentence and an exit code.

OSError, ValueError and UnicodeError come from what the user gave (exit 2); wrong use is told as click does, or as one
JSON document; anything else is a defect of Casemate (exit 1), shown with its place, and whole under CASEMATE_DEBUG.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import click

DEBUG = "CASEMATE_DEBUG"
CUT_OFF = 141  # as a shell reports a program that a closed pipe ended


def wants_json(arguments: list[str]) -> bool:
    """Whether `--json` is among the options, also where click could not read the rest."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "--json" in options


def usage(error: click.ClickException, *, as_json: bool) -> int:
    """Show wrong use; the exit code."""
    if not as_json:
        error.show()
        return error.exit_code
    context = getattr(error, "ctx", None)
    nothing = type(error).__name__ == "NoArgsIsHelpError"  # its message is the whole help page
    message = "a command is wanted" if nothing else error.format_message()
    _document(message, "Usage", f"{context.command_path} --help" if context else "casemate --help")
    return error.exit_code


def unforeseen(error: Exception, *, as_json: bool) -> int:
    """Show an error that is not Casemate's own; the exit code."""
    if os.environ.get(DEBUG):
        traceback.print_exception(error)
    message, kind, hint, code = _told(error)
    if as_json:
        _document(message, kind, hint)
    else:
        from casemate.cli import output

        _quietly(f"error: {output.clean(message)}" + (f"\nwhat to do: {output.clean(hint)}" if hint else ""), err=True)
    return code


def open_streams() -> None:
    """Give a program that was started without stdout or stderr a place to write to.

    Their numbers are taken too, so that no file which is opened later gets what is meant for a terminal.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    if sys.stdout is None:
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - open until the program ends
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - likewise


def was_cut_off() -> bool:
    """Whether click put stdout aside because nobody reads it any more."""
    return type(sys.stdout).__name__.endswith("PacifyFlushWrapper")  # click does not export it under a lasting name


def nobody_reads() -> bool:
    """Whether stdout is a pipe without a reader; else a broken pipe is one of our own, and no reason to be silent."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    except (OSError, ValueError):
        return True


def left(error: SystemExit) -> int:
    """The exit code of a program that leaves by itself; with a text for a code, Python's own meaning: said, and 1."""
    if error.code is None or isinstance(error.code, int):
        return error.code or 0
    _quietly(f"error: {error.code}", err=True)
    return 1


@contextlib.contextmanager
def signals_told() -> Iterator[None]:
    """A long command that is told to end says so, and its `finally` clauses take away what it began."""

    def end(number: int, _: object) -> None:
        raise SystemExit(f"ended by {signal.Signals(number).name} before it was done")

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def drain(code: object) -> object:
    """Flush both streams; the exit code. One that takes no more is put aside, so that leaving the program is silent.

    Python itself would end with 120 over a stderr that nobody reads; progress is no part of the verdict.
    """
    with contextlib.suppress(OSError, ValueError):
        _flush(sys.stderr, sys.__stderr__, 2)
    try:
        _flush(sys.stdout, sys.__stdout__, 1)
    except (OSError, ValueError) as error:
        return CUT_OFF if isinstance(error, BrokenPipeError) else code
    return code


def _flush(stream: TextIO, first: TextIO | None, number: int) -> None:
    """Flush; what can't be is led to nowhere, and the error goes on."""
    try:
        stream.flush()
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), first.fileno() if first else number)
        raise


def _told(error: Exception) -> tuple[str, str, str, int]:
    """(sentence, kind, hint, exit code)."""
    if isinstance(error, OSError):
        place = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
        why = error.strerror or str(error) or type(error).__name__
        return f"{place}: {why}" if place else why, "Unusable", "", 2
    if isinstance(error, UnicodeError):
        hint = "arguments and text files are wanted in UTF-8"
        return "an argument or a file is not UTF-8 text", "Unusable", hint, 2
    if isinstance(error, MemoryError):
        return "there is not enough memory for this", "Unavailable", "", 1
    if isinstance(error, ValueError) and str(error):
        return f"the input cannot be used: {str(error)[:500]}", "Unusable", "", 2
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if f"{os.sep}casemate{os.sep}" in frame.filename] or frames[-1:]
    place = f"{own[-1].filename.rpartition(os.sep)[2]}:{own[-1].lineno}" if own else "an unknown place"
    hint = f"{DEBUG}=1 shows where it came from"
    return f"internal error: {type(error).__name__} at {place}; please report", "Internal", hint, 1


def _document(message: str, kind: str, hint: str) -> None:
    document: dict[str, Any] = {"error": message, "kind": kind, "hint": hint, "reasons": []}
    _quietly(json.dumps(document, indent=2))


def _quietly(text: str, *, err: bool = False) -> None:
    """Print, unless the stream takes no more."""
    try:
        click.echo(text, err=err)
    except (OSError, ValueError):
        return
