"""Workloads on this host: one folder each, one record of the truth, one lock that tells whether somebody minds it.

    $CASEMATE_HOME/workloads/<id>/   lock · state.json · launch.json · initdata.img · tpm/ · sockets · console.log · log

Rules
1. `state.json` is replaced atomically and only by the holder of `lock`: first the command that prepares, then the
   supervisor, which inherits the locked file. The kernel drops the lock with the last of them, however it ended.
2. Who finds the lock free and the state unfinished tells the truth: it ends what the record names (pid and start time),
   clears the sockets and writes down what happened.
3. A folder appears and goes by rename: it is never seen half made or half removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from casemate.drivers import paths, processes
from casemate.errors import CasemateError, Unavailable, Unusable
from casemate.host.keeping import last_lines, private
from casemate.host.state import LIVE, State, as_text

STATE = "state.json"
LOCK = "lock"
SUPERVISOR_LOG = "supervisor.log"
TPM_FOLDER = "tpm"
TPM_SOCKET = "tpm.sock"
SOCKETS = ("control.sock", "qmp.sock", TPM_SOCKET, "request.sock")
MAX_STATE_BYTES = 4 << 20
_WAIT_SECONDS = 10.0


class Workload:
    """One workload's folder. `lock` is the descriptor that holds it, or None for a reader."""

    def __init__(self, folder: Path, lock: int | None = None) -> None:
        self.folder = folder
        self.lock = lock

    @property
    def id(self) -> str:
        """The folder's name."""
        return self.folder.name

    def read(self) -> State:
        """The record as it stands; one that can't be read counts as a failed workload, which `rm` removes."""
        try:
            data = (self.folder / STATE).read_bytes()
            if len(data) > MAX_STATE_BYTES:
                raise ValueError("too long")
            return msgspec.json.decode(data, type=State)
        except FileNotFoundError as error:
            raise Unusable(f"workload {self.id} is gone") from error
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            return State(id=self.id, name=self.id, state="failed", message=f"its record can't be read ({error})"[:300])

    def write(self, state: State) -> None:
        """Replace the record; the caller holds the lock."""
        temporary = self.folder / (STATE + ".new")
        with private(temporary, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(state), indent=1))
        temporary.replace(self.folder / STATE)

    def minded(self) -> bool:
        """Whether a command or a supervisor holds the lock."""
        handle = _try_lock(self.folder / LOCK)
        if handle is None:
            return self.folder.exists()  # another command may have removed it meanwhile
        os.close(handle)
        return False

    def release(self) -> None:
        """Give up the lock."""
        if self.lock is not None:
            os.close(self.lock)
            self.lock = None


def root() -> Path:
    """`$CASEMATE_HOME/workloads`, made when missing."""
    folder = paths.home() / "workloads"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


@contextlib.contextmanager
def registry() -> Iterator[None]:
    """Hold the host-wide lock under which names, ports and volumes are given to workloads."""
    deadline = time.monotonic() + _WAIT_SECONDS
    while (handle := _try_lock(root() / ".lock")) is None:
        if time.monotonic() > deadline:
            raise Unavailable("another casemate command holds the list of workloads", hint="try again")
        time.sleep(0.02)
    try:
        yield
    finally:
        os.close(handle)


def create(state: State) -> Workload:
    """A new, locked folder for `state`; its id is chosen here. Call it under `registry`."""
    sweep()
    draft = root() / f".new-{secrets.token_hex(8)}"
    draft.mkdir(mode=0o700)
    handle = _try_lock(draft / LOCK)
    if handle is None:
        raise Unavailable(f"{draft} is held by another process")
    state.id = _unused_id()
    workload = Workload(draft, handle)
    workload.write(state)
    target = root() / state.id
    draft.rename(target)
    workload.folder = target
    return workload


def everything() -> list[tuple[Workload, State]]:
    """Each workload with its true state, oldest first; dead ones are cleared up on the way."""
    found = [(workload, settle(workload)) for workload in _folders()]
    return sorted(found, key=lambda pair: (pair[1].created, pair[1].id))


def resolve(word: str) -> Workload:
    """The workload that `word` means: an id, a name, or the beginning of exactly one id."""
    folders = _folders()
    named = [w for w in folders if w.id == word] or [w for w in folders if w.read().name == word]
    chosen = named or [w for w in folders if word and w.id.startswith(word)]
    if len(chosen) == 1:
        return chosen[0]
    if not chosen:
        raise Unusable(f"no workload {as_text(word, 80)!r}", hint="casemate ps lists them")
    raise Unusable(f"{as_text(word, 80)!r} means {len(chosen)} workloads: {', '.join(w.id for w in chosen)[:200]}")


def settle(workload: Workload) -> State:
    """The true state: when nobody minds the workload any more, end what is left of it and write that down."""
    state = workload.read()
    left = [p for p in (state.supervisor, state.qemu, state.swtpm) if processes.alive(p)]
    if state.state not in LIVE and not left:
        return state
    handle = _try_lock(workload.folder / LOCK)
    if handle is None:
        return state
    try:
        state = workload.read()
        _clear(workload.folder, state)
        if state.state in LIVE:
            state.message = _epitaph(state, workload.folder)
            state.state = "failed"
            state.finished = time.time()
        Workload(workload.folder, handle).write(state)
    finally:
        os.close(handle)
    return state


def remove(workload: Workload) -> None:
    """Remove a finished workload's folder; `Unusable` while it lives."""
    state = settle(workload)
    if state.state in LIVE:
        raise Unusable(f"workload {state.name} is {state.state}", hint=f"casemate stop {state.name}, or rm --force")
    trash = root() / f".trash-{secrets.token_hex(8)}"
    with contextlib.suppress(FileNotFoundError):
        workload.folder.rename(trash)
        shutil.rmtree(trash, ignore_errors=True)  # what is left is swept by the next start


def sweep() -> None:
    """Remove folders that a killed command left half made or half removed."""
    for folder in root().glob(".[nt][er][wa]*-*"):
        handle = _try_lock(folder / LOCK) if folder.is_dir() else None
        if handle is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(handle)


def _folders() -> list[Workload]:
    return [Workload(item) for item in root().iterdir() if not item.name.startswith(".") and (item / STATE).exists()]


def _unused_id() -> str:
    while (root() / (candidate := secrets.token_hex(6))).exists():
        continue
    return candidate


def _clear(folder: Path, state: State) -> None:
    """End the processes of a dead supervisor and remove its sockets."""
    for process in (state.qemu, state.swtpm, state.supervisor):
        if not processes.end(process, grace=1.0):
            raise CasemateError(f"workload {state.name}: process {process.pid if process else 0} does not end")
    for name in SOCKETS:
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / TPM_FOLDER, ignore_errors=True)


def _epitaph(state: State, folder: Path) -> str:
    if state.qemu is None:
        words = last_lines(folder / SUPERVISOR_LOG, 1)
        return "it ended before its VM ran" + (f": {words[0]}" if words else "")
    if state.qemu.boot != processes.boot_id():
        return "the host was restarted while it ran"
    return "its supervisor ended unexpectedly, so the VM was stopped"


def _try_lock(path: Path) -> int | None:
    """An exclusive lock on `path`, or None when somebody else holds it or the folder is gone."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle
