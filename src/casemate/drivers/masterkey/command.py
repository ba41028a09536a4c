"""A master key behind a command, for key services that have a program of their own.

Each call starts the program once. It reads one JSON object from standard input and answers one on standard output:

    {"version": 1, "act": "wrap" | "unwrap", "key_id": "…", "data": "<base64>"}  →  {"data": "<base64>"}

Exit code 0 or the call failed. Answers have a bound, calls a deadline; what the program writes to standard error goes
to the broker's own, so it must not write keys there.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from casemate.drivers import masterkey
from casemate.errors import Malformed, Unavailable, Unusable
from casemate.wire import jcs
from casemate.wire.encoding import b64, unb64

MAX_ANSWER = 16 << 10
LONGEST = 60.0


class CommandKey:
    """Wrapped: whatever the program answers, at most 4 KiB."""

    kind, slow = "command", True

    def __init__(self, argv: Sequence[str], key_id: str, *, seconds: float = 10.0) -> None:
        if not argv or not Path(argv[0]).is_absolute():
            raise Unusable("masters: argv begins with the program's absolute path")
        if not 0 < len(key_id) <= 512 or not 0 < seconds <= LONGEST:
            raise Unusable(f"masters: a key_id is wanted, and `seconds` of at most {LONGEST:g}")
        if not os.access(argv[0], os.X_OK):
            raise Unusable(f"masters: {argv[0]} is not a program that can be run")
        self._argv, self._key_id, self._seconds = list(argv), key_id, seconds
        self.ident = masterkey.ident(self.kind, key_id.encode())

    def wrap(self, key: bytes) -> bytes:
        """A data key, wrapped; shown to open again before anything relies on it."""
        wrapped = self._ask("wrap", key)
        if not 0 < len(wrapped) <= masterkey.MAX_WRAPPED or wrapped == key:
            raise Unavailable("the master key's command wraps nothing that can be kept")
        if self.unwrap(wrapped) != key:
            raise Unavailable("the master key's command does not open what it wrapped")
        return wrapped

    def unwrap(self, wrapped: bytes) -> bytes:
        """The data key."""
        return masterkey.demand_key(self._ask("unwrap", wrapped))

    def close(self) -> None:
        """Nothing is held."""

    def _ask(self, act: str, data: bytes) -> bytes:
        question = {"version": 1, "act": act, "key_id": self._key_id, "data": b64(data)}
        try:
            return answered(_run(self._argv, json.dumps(question).encode() + b"\n", self._seconds))
        except Malformed as error:
            raise Unavailable(f"the master key's command answers nonsense: {error}") from None


def answered(raw: bytes) -> bytes:
    """The data in a program's answer; `Malformed` unless it is one object with base64 in `data`."""
    document = jcs.parse_object(raw, "answer", limit=MAX_ANSWER)
    data = document.get("data")
    if not isinstance(data, str) or set(document) != {"data"}:
        raise Malformed("answer: one member `data` is wanted")
    return unb64(data, "answer.data")


def _run(argv: list[str], question: bytes, seconds: float) -> bytes:
    """The program's answer; whatever of its group still runs at the end is killed."""
    deadline = time.monotonic() + seconds
    try:
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    except OSError as error:
        raise Unavailable(f"the master key's command can't be started ({error.strerror})") from error
    try:
        said = _exchange(process, question, deadline)
        code = process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise Unavailable(f"the master key's command did not answer within {seconds:g} seconds") from None
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
    if code:
        raise Unavailable(f"the master key's command failed (exit code {code})", hint="see the broker's standard error")
    return said


def _exchange(process: subprocess.Popen[bytes], question: bytes, deadline: float) -> bytes:
    """Write the question, read the answer until its end, never more than the bound and never beyond the deadline."""
    if process.stdin is None or process.stdout is None:
        raise Unavailable("the master key's command has no pipes")
    _tell(process.stdin, question)
    os.set_blocking(process.stdout.fileno(), False)
    found = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not selector.select(left):
                raise subprocess.TimeoutExpired(process.args, 0)
            part = os.read(process.stdout.fileno(), 65536)
            if not part:
                return bytes(found)
            found += part
            if len(found) > MAX_ANSWER:
                raise Malformed(f"more than {MAX_ANSWER} bytes")


def _tell(pipe: IO[bytes], question: bytes) -> None:
    """A question is shorter than a pipe's buffer, so this never waits; a program may also answer without reading."""
    with contextlib.suppress(BrokenPipeError):
        pipe.write(question)
        pipe.flush()
    with contextlib.suppress(BrokenPipeError):
        pipe.close()
