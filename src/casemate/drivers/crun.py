"""The OCI runtime in the guest: crun, told everything by a bundle's config.json (OCI runtime spec 1.0.2, CLI of runc).

A container's first process becomes the agent's child (the agent is process 1 or a subreaper), so its exit status is
waited for like any other. The runtime's own messages go to a file in the bundle, because standard output and standard
error belong to the container.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from casemate.errors import Unavailable

TIMEOUT = 60.0
_LOG_BYTES = 4096
_COLLECT_SECONDS = 3.0


class Output(NamedTuple):
    """What a program in a container gave: exit code, standard output and standard error (bounded)."""

    code: int
    stdout: bytes
    stderr: bytes


class Crun:
    """`binary` is found in PATH; `state` is the runtime's folder, on tmpfs."""

    def __init__(self, state: Path, binary: str = "crun") -> None:
        self._state, self._binary = state, binary

    def run(self, name: str, bundle: Path, stdout: IO[bytes], stderr: IO[bytes]) -> int:
        """Create and start the container of `bundle`; returns the process id of its first process."""
        pid_file, log = bundle / "pid", bundle / "runtime.log"
        pid_file.unlink(missing_ok=True)
        log.unlink(missing_ok=True)
        words = [
            *self._words(),
            *("--log", f"file:{log}" if "crun" in self._binary else str(log)),
            *("run", "--detach", "--bundle", str(bundle), "--pid-file", str(pid_file), name),
        ]
        try:
            code = subprocess.call(words, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, timeout=TIMEOUT)
            if code == 0:
                return int(pid_file.read_text())
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            raise Unavailable(f"container {name}: the runtime failed ({type(error).__name__})") from error
        raise Unavailable(f"container {name} could not be started: {_tail(log) or f'exit code {code}'}")

    def kill(self, name: str, signal: int) -> None:
        """Send a signal to every process of the container; a container that ended is no error."""
        self._quiet("kill", "--all", name, str(signal))

    def delete(self, name: str) -> None:
        """Forget the container and end what is left of it."""
        self._quiet("delete", "--force", name)

    def execute(self, name: str, command: Sequence[str], *, timeout: float, limit: int) -> Output:
        """Run `command` in the container, as its user; at most `limit` bytes of each stream are kept."""
        import tempfile

        try:
            with tempfile.TemporaryDirectory(prefix="exec-", dir=self._state) as folder:
                pid_file = Path(folder) / "pid"
                words = [*self._words(), "exec", "--no-new-privs", "--pid-file", str(pid_file), name, *command]
                with subprocess.Popen(
                    words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
                ) as process:
                    return _collect(process, timeout, limit, lambda: _end(pid_file))
        except OSError as error:
            raise Unavailable(f"container {name}: the runtime failed ({type(error).__name__})") from error

    def _words(self) -> list[str]:
        return [self._binary, "--root", str(self._state)]

    def _quiet(self, *words: str) -> None:
        try:
            subprocess.run(
                [*self._words(), *words], stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unavailable(f"the container runtime failed ({type(error).__name__})") from error


def _tail(log: Path) -> str:
    """The runtime's last message, as one short line."""
    try:
        with log.open("rb") as stream:
            lines = stream.read(_LOG_BYTES).decode("utf-8", "replace").strip().splitlines()
    except OSError:
        return ""
    return "".join(c for c in lines[-1][:300] if c.isprintable()) if lines else ""


def _end(pid_file: Path) -> None:
    """Kill what the runtime runs in the container; the runtime waits for it, so the number is still its own."""
    import contextlib
    import os
    import signal

    with contextlib.suppress(OSError, ValueError):
        pid = int(pid_file.read_text())
        if pid > 1:
            os.kill(pid, signal.SIGKILL)


def _collect(process: subprocess.Popen[bytes], timeout: float, limit: int, end: Callable[[], None]) -> Output:
    """Both streams up to `limit`; what is beyond is read and dropped so that the program can end.

    `end` is called when the time is over, before the runtime itself is killed.
    """
    import threading

    kept: list[bytes] = [b"", b""]

    def drain(index: int, stream: IO[bytes]) -> None:
        while part := stream.read1(65536) if hasattr(stream, "read1") else stream.read(65536):
            kept[index] += part[: max(0, limit - len(kept[index]))]

    assert process.stdout is not None and process.stderr is not None  # noqa: S101, PT018 - both are pipes, see the caller
    threads = [
        threading.Thread(target=drain, args=(i, s), daemon=True) for i, s in enumerate((process.stdout, process.stderr))
    ]
    for thread in threads:
        thread.start()
    try:
        code = process.wait(timeout)
    except subprocess.TimeoutExpired:
        end()
        try:
            # The runtime must collect what was killed: a zombie that nobody collects keeps its container from ending.
            code = process.wait(_COLLECT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
    for thread in threads:
        thread.join(2.0)
    return Output(code, kept[0], kept[1])
