"""The supervisor: one small process a workload, which owns QEMU, listens to the guest and keeps the record.

    python -m casemate.host.supervisor FOLDER LOCK    LOCK is the inherited descriptor of the folder's lock

Order: vTPM, QEMU, then a loop over the control channel, requests of commands and the ends of both children; at the end
the record tells why, and nothing is left but files. It is the only writer of the record while it lives. Should it die,
the lock falls free and the next command clears up (`workloads.settle`).
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from casemate.drivers import processes, qemu, swtpm
from casemate.errors import CasemateError, Unavailable
from casemate.host import control, keeping, plan, requests
from casemate.host.service import Requests
from casemate.host.state import DONE, LIVE
from casemate.host.stopping import Ladder
from casemate.host.workloads import SOCKETS, TPM_FOLDER, TPM_SOCKET, Workload

QEMU_LOG = "qemu.log"
_CONNECT_SECONDS = 15.0
_TPM_SECONDS = 3.0
_TICK = 0.5
_LAST_WORDS = 16  # reads of what the guest had sent before QEMU ended


class Supervisor:
    """Minds one workload from the start of its children to their end."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.folder = workload.folder
        self.state = workload.read()
        self.plan = plan.read(self.folder)
        self.selector = selectors.DefaultSelector()
        self.channel: control.Channel | None = None
        self.requests = Requests(self)
        self.ladder = Ladder(self)
        self.ended = False
        self.terminated = False
        self._swtpm: subprocess.Popen[bytes] | None = None
        self._qemu: subprocess.Popen[bytes] | None = None
        self._deaf = False
        self._tpm_gone: float | None = None
        self._began = 0.0

    def run(self) -> None:
        """Start, mind, and write down the end."""
        try:
            self._start()
            while not self.ended:
                for key, _ in self.selector.select(0.05 if self.channel is None else _TICK):
                    key.data()
                self._tick()
        except CasemateError as error:
            self._fail(str(error), hint=error.hint)
        finally:
            self._finish()

    def save(self) -> None:
        """Write the record."""
        self.workload.write(self.state)

    def tell(self, message: dict[str, Any]) -> bool:
        """Send a message to the guest; False when there is no agent to hear it."""
        if self.channel is None or not self.state.agent:
            return False
        with contextlib.suppress(Unavailable):
            self.channel.send(message)
            return True
        return False

    def _start(self) -> None:
        self.state.supervisor = processes.record(os.getpid())
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "terminated", True))
        for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(ignored, signal.SIG_IGN)
        for name in SOCKETS:
            (self.folder / name).unlink(missing_ok=True)
        self.requests.listen(self.selector)
        if self.plan.vtpm:
            self._swtpm = swtpm.serve(Path(TPM_FOLDER), Path(TPM_SOCKET), log=Path("swtpm.log"))
            self.state.swtpm = processes.record(self._swtpm.pid)
            self._watch(self._swtpm, self._tpm_ended)
        self._began = time.monotonic()
        self._qemu = self._spawn(self.plan.qemu, QEMU_LOG)
        self._watch(self._qemu, self._vm_ended)
        self.state.qemu = processes.record(self._qemu.pid)
        self.state.started = time.time()
        self.state.state = "starting"
        self.save()

    def _spawn(self, argv: list[str], log: str) -> subprocess.Popen[bytes]:
        """A child in a session of its own, with private files; it inherits neither the lock nor our sockets."""
        with keeping.private(self.folder / log, "ab") as output:
            try:
                return subprocess.Popen(
                    argv, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                    start_new_session=True, umask=0o077,
                )  # fmt: skip
            except OSError as error:
                raise Unavailable(f"{argv[0]} does not start: {error.strerror}") from error

    def _watch(self, child: subprocess.Popen[bytes], then: Any) -> None:
        self.selector.register(os.pidfd_open(child.pid), selectors.EVENT_READ, then)

    def _vm_ended(self) -> None:
        self.ended = True

    def _tpm_ended(self) -> None:
        for key in list(self.selector.get_map().values()):
            if key.data == self._tpm_ended:
                self.selector.unregister(key.fileobj)
        self._tpm_gone = time.monotonic()  # QEMU closes it when it powers off, a moment before it ends itself

    def _tick(self) -> None:
        """What time alone brings: the channel's start, limits of files and of time."""
        now = time.monotonic() - self._began
        if self.channel is None:
            self._connect(now)
        if self.terminated:
            self.terminated = False
            self.ladder.begin(10.0)
        if self.channel is not None and self.channel.waiting:
            with contextlib.suppress(Unavailable):
                self.channel.flush()
        for name in (qemu.CONSOLE_LOG, QEMU_LOG):
            keeping.trim(self.folder / name)
        self.state.qemu_peak_mib = max(self.state.qemu_peak_mib, processes.memory_mib(self.state.qemu)[1])
        if self.state.state == "starting" and now > self.plan.start_seconds:
            self._fail(f"the guest did not come up within {self.plan.start_seconds:.0f} s")
            self.ladder.firm()
        if self._tpm_gone is not None and time.monotonic() - self._tpm_gone > _TPM_SECONDS and not self.ended:
            self._tpm_gone = None
            self._fail("the software TPM ended unexpectedly")
            self.ladder.firm()
        self.requests.expire()
        self.ladder.step()

    def _connect(self, now: float) -> None:
        try:
            connection = requests.connect(self.folder, qemu.CONTROL_SOCKET)
        except Unavailable:
            if now > _CONNECT_SECONDS:
                raise
            return
        self.channel = control.Channel(connection)
        self.selector.register(connection, selectors.EVENT_READ, self._hear)

    def _hear(self) -> None:
        """Enter what the guest says; a closed channel means that QEMU is about to end."""
        if self.channel is None or self._deaf:
            return
        try:
            for message in self.channel.receive():
                self._message(message)
        except Unavailable:
            self._deaf = True
            self.selector.unregister(self.channel.socket)

    def _message(self, message: dict[str, Any]) -> None:
        kind = message.get("type")
        if kind == "log":
            line = control.log_line(message, frozenset(self.plan.containers)) if self.plan.logs else None
            if line is not None:
                keeping.append_log(self.folder, {"time": round(time.time(), 3), **line})
        elif kind == "reply":
            self.requests.reply(message)
        elif control.apply(self.state, message, time.monotonic() - self._began):
            self.save()
            if self.state.state in DONE:
                self.ladder.expect_end(self.plan.farewell_seconds)

    def _fail(self, message: str, *, hint: str = "") -> None:
        if self.state.state in LIVE:
            self.state.state = "failed"
            self.state.message = message + (f"; {hint}" if hint else "")
            self.state.console = keeping.last_lines(self.folder / qemu.CONSOLE_LOG)
            self.save()

    def _finish(self) -> None:
        """Hear the last words, end the children, say why, leave only files."""
        for _ in range(_LAST_WORDS):
            self._hear()
        for child in (self.state.qemu, self.state.swtpm):
            processes.end(child, grace=2.0)
        if self._qemu is not None:
            self._explain(self._qemu.wait())
        for name in SOCKETS:
            (self.folder / name).unlink(missing_ok=True)
        shutil.rmtree(self.folder / TPM_FOLDER, ignore_errors=True)
        self.state.finished = time.time()
        self.save()
        self.requests.farewell()

    def _explain(self, code: int) -> None:
        """The final state, when the guest did not say it itself."""
        if self.state.state == "stopping":
            self.state.state, self.state.message = "stopped", self.state.message or "stopped on request"
        elif self.state.state in LIVE:
            words = keeping.last_lines(self.folder / QEMU_LOG, 5)
            how = f"QEMU ended with code {code}" if code >= 0 else f"QEMU ended by signal {-code}"
            how = "it powered off" if code == 0 else how
            self._fail(f"the VM ended unexpectedly ({how})" + (": " + " | ".join(words) if words else ""))


def main(arguments: list[str]) -> int:
    """Entry point: mind the workload in the named folder with the lock that was handed over."""
    folder, lock = Path(arguments[0]), int(arguments[1])
    os.set_inheritable(lock, False)
    os.chdir(folder)
    Supervisor(Workload(folder, lock)).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
