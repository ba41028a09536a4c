"""swtpm: manufacture TPM states, and run one for QEMU (control socket) or for this process (a socket pair).

Programs: swtpm, swtpm_setup and swtpm_localca of the machine (Debian packages swtpm and swtpm-tools). Their system-wide
configuration is never read: every path is given, so that all keys of the local authority lie in one private folder.

A state folder holds secrets (the seeds of a TPM), so it is 0700, and whoever can read it can forge that TPM.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from casemate.errors import Unavailable, Unusable

__all__ = ["Connection", "connect", "manufacture", "program", "serve"]

STATE_FILE = "tpm2-00.permall"
_TIMEOUT = 20.0
_SETUP_TIMEOUT = 120.0
_POLL_SECONDS = 0.01
_MAX_RESPONSE = 4096


def program(name: str) -> str:
    """The path of one of swtpm's programs, which may lie outside an ordinary user's PATH."""
    found = shutil.which(name) or shutil.which(name, path="/usr/bin:/usr/sbin:/usr/local/bin:/usr/local/sbin")
    if found is None:
        raise Unusable(f"the program {name} is missing", hint="apt-get install swtpm swtpm-tools")
    return found


def manufacture(state: Path, *, authority: Path, subject: str) -> None:
    """Make a new TPM 2.0 state in the folder `state`: EKs with certificates by `authority`, with the sha256 bank alone.

    `authority` is a folder with `signkey.pem` and `issuercert.pem` (a CA); `subject` becomes the EK certificates' name.
    Not safe to run twice at once with one authority: its serial numbers are a file.
    """
    state.mkdir(mode=0o700, exist_ok=True)
    arguments = [
        program("swtpm_setup"), "--tpm2", "--tpmstate", str(state), "--tpm", f"{program('swtpm')} socket",
        "--config", str(_configuration(authority)), "--create-ek-cert", "--lock-nvram",
        "--pcr-banks", "sha256", "--vmid", subject, "--logfile", str(state / "setup.log"),
    ]  # fmt: skip
    try:
        done = subprocess.run(
            arguments, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SETUP_TIMEOUT, check=False, umask=0o077
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"swtpm_setup did not end within {_SETUP_TIMEOUT:.0f} s") from error
    if done.returncode != 0:
        raise Unavailable(f"swtpm_setup failed: {_last_line(state / 'setup.log', done.stderr)}")


def serve(state: Path, control: Path, *, log: Path | None = None) -> subprocess.Popen[bytes]:
    """Run swtpm on `state` for a QEMU that will connect to the UNIX socket `control`; returns when it listens.

    It runs in a session of its own and ends when QEMU's connection closes; `Popen.pid` is what to remember.
    """
    if len(os.fsencode(control)) > 107:
        raise Unusable(f"{control}: a socket's path has at most 107 bytes", hint="use a shorter CASEMATE_HOME")
    _demand_plain(control)
    if not (state / STATE_FILE).is_file():
        raise Unusable(f"{state} holds no TPM state", hint="take one from the pool")
    control.unlink(missing_ok=True)
    log = log or state / "swtpm.log"
    process = _start(state, ["--ctrl", f"type=unixio,path={control},mode=0600"], log)
    deadline = time.monotonic() + _TIMEOUT
    while not control.is_socket():
        if process.poll() is not None:
            raise Unavailable(f"swtpm ended at once: {_last_line(log)}")
        if time.monotonic() > deadline:
            _end(process)
            raise Unavailable(f"swtpm did not listen within {_TIMEOUT:.0f} s")
        time.sleep(_POLL_SECONDS)
    return process


class Connection:
    """A TPM transport over a stream socket to swtpm: `transmit(command) -> response`."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        sock.settimeout(_TIMEOUT)

    def transmit(self, command: bytes) -> bytes:
        """One command, one response; a response announces its own size in bytes 2 to 6."""
        try:
            self._sock.sendall(command)
            header = self._read(10)
            size = int.from_bytes(header[2:6], "big")
            if not 10 <= size <= _MAX_RESPONSE:
                raise Unavailable(f"swtpm announced a response of {size} bytes")
            return header + self._read(size - 10)
        except OSError as error:
            raise Unavailable(f"swtpm does not answer: {error}") from error

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self._sock.recv(count - len(data))
            if not part:
                raise Unavailable("swtpm closed the connection")
            data += part
        return data


@contextlib.contextmanager
def connect(state: Path, *, log: Path | None = None) -> Iterator[Connection]:
    """Run swtpm on `state` for the duration, talking to it over a socket pair. The caller sends TPM2_Startup itself."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            arguments = ["--fd", str(theirs.fileno()), "--flags", "not-need-init"]
            process = _start(state, arguments, log or state / "swtpm.log", fd=theirs.fileno())
        try:
            yield Connection(ours)
        finally:
            ours.close()  # with --terminate, the end of the connection is the end of swtpm
            _end(process, patience=2.0)


def _start(state: Path, arguments: list[str], log: Path, fd: int | None = None) -> subprocess.Popen[bytes]:
    _demand_plain(state)
    whole = [program("swtpm"), "socket", "--tpm2", "--tpmstate", f"dir={state},mode=0600", "--terminate"]
    with log.open("ab") as output:
        return subprocess.Popen(
            [*whole, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            pass_fds=() if fd is None else (fd,),
            umask=0o077,
        )


def _demand_plain(path: Path) -> None:
    """Refuse a path that swtpm's own option syntax would cut in two."""
    if "," in str(path):
        raise Unusable(f"{path}: swtpm cannot take a path with a comma", hint="use another CASEMATE_HOME")


def _end(process: subprocess.Popen[bytes], patience: float = 0.0) -> None:
    """Wait for the process to end by itself for `patience` seconds, then end it."""
    for step, seconds in ((None, patience), (process.terminate, 2.0), (process.kill, 5.0)):
        if step is not None:
            step()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            continue
        return


def _configuration(authority: Path) -> Path:
    """The two configuration files of swtpm_setup and swtpm_localca in `authority`; the first one's path."""
    local = authority / "localca.conf"
    setup = authority / "setup.conf"
    _write(
        local,
        f"statedir = {authority}\nsigningkey = {authority}/signkey.pem\n"
        f"issuercert = {authority}/issuercert.pem\ncertserial = {authority}/certserial\n",
    )
    _write(
        authority / "localca.options", "--platform-manufacturer Casemate\n--platform-version 1\n--platform-model VM\n"
    )
    _write(
        setup,
        f"create_certs_tool = {program('swtpm_localca')}\ncreate_certs_tool_config = {local}\n"
        f"create_certs_tool_options = {authority}/localca.options\n",
    )
    return setup


def _write(path: Path, text: str) -> None:
    """Write a small file unless it says so already (two commands may prepare at once)."""
    if path.is_file() and path.read_text() == text:
        return
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text)
    draft.replace(path)


def _last_line(log: Path, output: bytes = b"") -> str:
    """The last thing a program said, for an error message."""
    try:
        text = log.read_bytes()[-2000:]
    except OSError:
        text = b""
    lines = (text + b"\n" + output[-2000:]).decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:300] if lines else "it said nothing"
