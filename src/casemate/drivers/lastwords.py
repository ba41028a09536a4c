"""Why a program failed, in words: what it said at its end, and how it ended; no failure is without a sentence."""

from __future__ import annotations

import signal
from subprocess import CompletedProcess

_LONGEST = 300


def of(done: CompletedProcess[str] | CompletedProcess[bytes]) -> str:
    """The end of what it said (on stderr, else on stdout); where a signal ended it or it said nothing, how it ended."""
    said = next((text for text in map(_text, (done.stderr, done.stdout)) if text), "")[-_LONGEST:]
    if done.returncode < 0:
        return f"{_signal(-done.returncode)}{': ' + said if said else ''}"
    return said or f"it ended with code {done.returncode} and said nothing"


def _signal(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    memory = "; the machine may be out of memory" if number == signal.SIGKILL else ""
    return f"{name} ended it{memory}"


def _text(said: str | bytes | None) -> str:
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else said or ""
    return text.strip()
