"""One evaluator: a child process that answers one question at a time and is killed when it does not."""

from __future__ import annotations

import os
import subprocess
import time
from collections import OrderedDict
from typing import Any

from casemate.drivers.rego import frames
from casemate.drivers.rego.compile import ENVIRONMENT, program
from casemate.drivers.rego.frames import Ended, TooLate
from casemate.errors import Malformed, Unavailable

START_SECONDS = 20.0
MAX_KEPT = 64
MAX_QUESTIONS = 200_000  # a child is replaced before what it may have hoarded counts


class Worker:
    """A running child. Used by one thread at a time; after any error it is dead."""

    def __init__(self, group: str) -> None:
        self.group = group
        self.asked = 0
        self._kept: OrderedDict[str, None] = OrderedDict()
        try:
            self._child = subprocess.Popen(
                program("child"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=ENVIRONMENT,
                cwd="/",
                bufsize=0,
            )
        except OSError as error:
            raise Unavailable(f"a policy evaluator does not start ({type(error).__name__})") from error
        if self._child.stdin is None or self._child.stdout is None:
            raise Unavailable("a policy evaluator has no pipes")
        self._to, self._from = self._child.stdin.fileno(), self._child.stdout.fileno()
        os.set_blocking(self._to, False)
        os.set_blocking(self._from, False)
        try:
            self.confinement = list(frames.receive(self._from, time.monotonic() + START_SECONDS)["ready"])
        except (Ended, TooLate, Malformed, KeyError, TypeError) as error:
            self.kill()
            raise Unavailable("a policy evaluator does not start") from error

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._child.pid

    @property
    def usable(self) -> bool:
        """Whether it can take another question."""
        return self._child.poll() is None and self.asked < MAX_QUESTIONS

    def ask(self, documents: dict[str, Any], question: dict[str, Any], deadline: float) -> dict[str, Any]:
        """The child's answer. `documents` (name → content) are sent once; `Ended`, `TooLate`, `Malformed`."""
        self.asked += 1
        sent = b""
        if len(self._kept) + len(documents) > MAX_KEPT:
            sent += frames.packed({"forget": True})
            self._kept.clear()
        for name, content in documents.items():
            if name not in self._kept:
                sent += frames.packed({"keep": [name, content]})
                self._kept[name] = None
        frames.send(self._to, sent + frames.packed(question), deadline)
        found = frames.receive(self._from, deadline)
        if not isinstance(found, dict):
            raise Malformed("policy answer: not an object")
        return found

    def kill(self) -> None:
        """End the child at once."""
        self._child.kill()
        self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                pipe.close()
