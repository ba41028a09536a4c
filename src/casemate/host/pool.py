"""A pool of prepared TPM states, so that no VM start waits for a TPM to be manufactured. Each state serves once.

    <folder>/ca/            the platform CA and the EK authority
    <folder>/making/<id>/   a state that is being made; a leftover of a crash is removed by the next maker
    <folder>/ready/<id>/    prepared: AK and certificate inside, shut down in order
    <folder>/.maker         lock: one maker at a time

Taking is one rename, so two takers never get the same state and a crash loses at most one.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from casemate.drivers import paths, swtpm
from casemate.errors import Unavailable, Unusable
from casemate.host.platform_ca import PlatformCa, locked
from casemate.tee.tpm.wire import Tpm

__all__ = ["Pool", "SwtpmState", "default"]

RECORD = "state.json"
_MAX_AGE = timedelta(days=30)
_MIN_LEFT = timedelta(days=300)  # of the AK's year: a workload may run that long before its AK expires
_ATTEMPTS = 5


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """`state.json`: what is known of a state without starting it."""

    id: str
    ak_name: str
    ak_certificate: bytes
    made: datetime
    not_after: datetime

    def stale(self, now: datetime) -> bool:
        """Whether it should no longer be given out."""
        return not now - _MAX_AGE <= self.made <= now + timedelta(days=1) or self.not_after - now < _MIN_LEFT


@dataclass(frozen=True)
class SwtpmState:
    """A state that was taken: its folder (give it to `drivers.swtpm.serve`) and its record."""

    folder: Path
    record: Record


class Pool:
    """The pool in `folder`, with its platform CA beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._ready = self.folder / "ready"
        self._making = self.folder / "making"
        for path in (self.folder, self._ready, self._making):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.ca = PlatformCa.open(self.folder / "ca")

    def ready(self) -> int:
        """How many states wait."""
        return len(self._waiting())

    def prepare(self, count: int, *, wait: bool = True) -> int:
        """Make states until `count` are ready; returns how many were made.

        With `wait` off it makes none while another maker is at work.
        """
        made = 0
        with locked(self.folder / ".maker", wait=wait) as held:
            if not held:
                return 0
            self._sweep()
            while self.ready() < count:
                self._make()
                made += 1
        return made

    def refill(self, count: int) -> None:
        """Start a process in the background that prepares up to `count` states; returns at once."""
        if self.ready() >= count:
            return
        with (self.folder / "refill.log").open("wb") as log:
            subprocess.Popen(
                [sys.executable, "-m", "casemate.host.pool", str(self.folder), str(count)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def take(self, destination: Path) -> SwtpmState:
        """Move one state to `destination` (a path that does not exist yet) for one VM; makes one when none waits."""
        if destination.exists():
            raise Unusable(f"{destination} exists already")
        now = datetime.now(UTC)
        for _ in range(_ATTEMPTS):
            for waiting in self._waiting():
                taken = self._claim(waiting, destination)
                if taken is None:
                    continue
                record = _read(taken)
                if record is not None and not record.stale(now):
                    return SwtpmState(taken, record)
                shutil.rmtree(taken, ignore_errors=True)
            self.prepare(1)
        raise Unavailable("the TPM states are taken faster than they can be made", hint="try again")

    def _claim(self, waiting: Path, destination: Path) -> Path | None:
        """Move a waiting state to `destination`; None when another taker was quicker."""
        try:
            waiting.rename(destination)
        except FileNotFoundError:
            if not destination.parent.is_dir():
                raise Unusable(f"{destination.parent} does not exist") from None
            return None
        except OSError as error:
            raise Unusable(
                f"cannot move a TPM state to {destination} ({error.strerror})",
                hint="it must be on the file system of the pool",
            ) from error
        return destination

    def _waiting(self) -> list[Path]:
        return sorted(p for p in self._ready.iterdir() if not p.name.startswith("."))

    def _sweep(self) -> None:
        """Remove leftovers of makers that died, and states too old to be given out. Needs the lock."""
        now = datetime.now(UTC)
        for leftover in self._making.iterdir():
            shutil.rmtree(leftover, ignore_errors=True)
        for waiting in self._waiting():
            record = _read(waiting)
            if record is not None and not record.stale(now):
                continue
            grave = self._making / waiting.name  # first out of reach of takers, then away
            try:
                waiting.rename(grave)
            except FileNotFoundError:
                continue
            shutil.rmtree(grave, ignore_errors=True)

    def _make(self) -> None:
        identity = secrets.token_hex(8)
        draft = self._making / identity
        swtpm.manufacture(draft, authority=self.ca.ek_authority, subject=f"casemate-{identity}")
        with swtpm.connect(draft) as connection:
            tpm = Tpm(connection)
            tpm.startup()
            certified = self.ca.certify(tpm)
            tpm.shutdown()
        record = Record(
            id=identity,
            ak_name=certified.name,
            ak_certificate=certified.certificate,
            made=datetime.now(UTC),
            not_after=certified.not_after,
        )
        (draft / RECORD).write_bytes(msgspec.json.encode(record))
        draft.rename(self._ready / identity)


def _read(folder: Path) -> Record | None:
    """The record of a state; None when it is missing or broken, so that the state is never used."""
    try:
        return msgspec.json.decode((folder / RECORD).read_bytes(), type=Record)
    except (OSError, msgspec.DecodeError):
        return None


def default() -> Pool:
    """The pool of this trust domain."""
    return Pool(paths.home() / "platform")


def main(arguments: list[str]) -> int:
    """Refill from the background: `FOLDER COUNT`. Gives way to everything else on the machine."""
    os.nice(10)
    Pool(Path(arguments[0])).prepare(int(arguments[1]), wait=False)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
