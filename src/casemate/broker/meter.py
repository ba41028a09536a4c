"""Where a decision's time goes and what came of it, for whoever counts (`casemate.api.metrics`, benchmarks).

A step's name and an act's name are constants of our code: what a caller sent never becomes a name here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Protocol

from casemate.errors import Finding

# What is noted of the request at hand for its counters (`tee`), by whoever serves it.
NOTES: ContextVar[dict[str, str] | None] = ContextVar("notes", default=None)


# Rules of policies that gave no answer that counts (`broker.policies`), told apart from those that say no.
BROKEN_ATTESTATION, BROKEN_RESOURCE = "policy.attestation.error", "policy.resource.error"
BROKEN = frozenset((BROKEN_ATTESTATION, BROKEN_RESOURCE))


class Sink(Protocol):
    """Who counts. Both are called from any thread and must not fail."""

    def step(self, act: str, name: str, seconds: float) -> None:
        """One step of an act (`auth`, `attest`, `release`) took so long."""

    def decided(self, act: str, tee: str, allowed: bool, rules: Iterable[str]) -> None:
        """An act on evidence of `tee` was decided; `rules` are those that failed."""


class Meter:
    """Passes on to its sinks; without one it costs next to nothing."""

    def __init__(self) -> None:
        self._sinks: tuple[Sink, ...] = ()

    def attach(self, sink: Sink) -> None:
        """Tell `sink` too from now on."""
        self._sinks = (*self._sinks, sink)

    def laps(self, act: str) -> Callable[[str], None]:
        """What to call at the end of each step of an act, with the step's name; the first begins now."""
        begun = time.perf_counter()

        def lap(name: str) -> None:
            nonlocal begun
            now = time.perf_counter()
            for sink in self._sinks:
                sink.step(act, name, now - begun)
            begun = now

        return lap

    def decided(self, act: str, tee: str, findings: Iterable[Finding]) -> None:
        """Count a decision by its findings."""
        if (notes := NOTES.get()) is not None:
            notes["tee"] = tee
        if self._sinks:
            rules = [finding.rule for finding in findings if not finding.ok]
            for sink in self._sinks:
                sink.decided(act, tee, not rules, rules)
