"""Secrets of the containers: on tmpfs only, replaced atomically, followed by the signal that the manifest names.

Each secret file lies in a folder of its own kind that is mounted read-only into its container, so that a rename in the
folder is a change in the container: a bind mount of the file itself would keep showing the old one.

    <store>/<container>/<number of the folder>/<file name>       the value, mode and owner as the manifest says
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

from casemate.errors import CasemateError, Malformed, Refused
from casemate.guest import checks
from casemate.guest.attest import Resource
from casemate.guest.freshness import Freshness, Lease
from casemate.guest.users import User
from casemate.schema.manifest import Container, Secret

MAX_ENV = 64 << 10
_REVOKED = ("release.active", "platform.class")  # casemate.policy.appraise: what attesting anew can't mend


class Source(Protocol):
    """Where secrets come from (`casemate.guest.resources.Brokers`)."""

    def versioned(self, uri: str) -> Resource:
        """The value and its version."""
        ...

    def changed(self, uri: str, known: str) -> Resource | None:
        """The resource when its version is not `known`."""
        ...

    def login(self) -> None:
        """Attest anew."""
        ...


class Kept(NamedTuple):
    """A secret file as written: where it lies, who may read it, and what the manifest says of it."""

    container: str
    secret: Secret
    path: Path
    user: User


def environment(container: Container, source: Source) -> dict[str, str]:
    """The container's secret environment variables; they are fetched once and not updated."""
    found = {}
    for secret in container.secrets:
        if secret.env is not None:
            found[secret.env] = _text(secret, source.versioned(secret.resource).value)
    return found


def _text(secret: Secret, value: bytes) -> str:
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text or len(value) > MAX_ENV:
        raise Malformed(
            f"{secret.resource} can't be a variable: text without NUL of at most {MAX_ENV} bytes is wanted",
            hint="give it to the container as a file",
        )
    return text


def write(kept: Kept, value: bytes) -> None:
    """Put a value into place: whole or not at all, readable by its owner alone from the first byte on."""
    fresh = kept.path.with_name(f".{kept.path.name}.new")
    fresh.unlink(missing_ok=True)
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as stream:
            os.fchown(handle, kept.user.uid, kept.user.gid)
            os.fchmod(handle, int(kept.secret.mode, 8))
            stream.write(value)
        fresh.replace(kept.path)
    except BaseException:
        fresh.unlink(missing_ok=True)  # a full tmpfs must not stay full of half a value
        raise


class Keeper:
    """Writes the secret files, polls their versions, and with them whether the release is still active.

    `signal(container, name)` tells a container of changes; `revoked(refusal)` is called when the broker says that the
    release is no longer active, or says nothing for `silence` seconds. `asked` are resources by which to ask when there
    is no file: URI to version. `lease()` is the one that is held: attesting anew renews it at half its time.
    """

    def __init__(
        self,
        source: Source,
        signal: Callable[[str, str], None],
        seconds: float,
        revoked: Callable[[Refused], None] = lambda _: None,
        *,
        silence: float = 600.0,
        asked: Mapping[str, str] | None = None,
        lease: Callable[[], Lease] = Lease,
    ) -> None:
        self._source, self._signal, self._seconds, self._revoked = source, signal, seconds, revoked
        self._kept: list[Kept] = []
        self._versions: dict[str, str] = {}
        self._asked = dict(asked or {})
        self._fresh = Freshness(silence, revoked, lease)
        self._stop = threading.Event()
        self.troubles: dict[str, str] = {}

    def add(self, entries: Iterable[Kept]) -> None:
        """Fetch and write secret files before their container starts."""
        for kept in entries:
            uri = kept.secret.resource
            found = self._source.versioned(uri)
            write(kept, found.value)
            # The older version of two fetches stays known, so that the next poll brings both files to the newest.
            self._versions.setdefault(uri, found.version)
            self._kept.append(kept)

    def start(self) -> None:
        """Poll in the background; the bound on silence has a thread of its own, which no broker can hold up."""
        threading.Thread(target=self._poll, name="secrets", daemon=True).start()
        threading.Thread(target=self._fresh.watch, args=(self._stop,), name="freshness", daemon=True).start()

    def stop(self) -> None:
        """End the polling."""
        self._stop.set()

    def wipe(self) -> None:
        """Overwrite and remove every secret file: from here on the workload has none."""
        self.stop()
        for kept in self._kept:
            with contextlib.suppress(OSError):
                with kept.path.open("r+b", buffering=0) as stream:
                    stream.write(bytes(kept.path.stat().st_size))
                kept.path.unlink()

    def refresh(self) -> int:
        """Look at every secret once, write what changed, then signal; returns how many changed.

        A broker that refuses a single secret changes nothing: the container keeps what it was given. One that says that
        the release is revoked ends the workload, and so does silence that lasts.
        """
        judged = self._fresh.must_renew() and self._try("lease", self._source.login)
        changed: list[Kept] = []
        for uri in dict.fromkeys(kept.secret.resource for kept in self._kept):
            answered, found = self._ask(uri, self._versions.get(uri, ""))
            judged = judged or answered
            if found is None or found.version in ("", self._versions.get(uri)):
                continue  # without a version nobody can tell whether it changed
            changed += self._replace(uri, found)
        if not judged:
            self._judge()
        for container, signal in dict.fromkeys((k.container, k.secret.signal) for k in changed if k.secret.signal):
            self._guarded(f"signal to {container}", partial(self._signal, container, str(signal)))
        return len({kept.secret.resource for kept in changed})

    def _ask(self, uri: str, known: str) -> tuple[bool, Resource | None]:
        """Whether a broker released `uri`, so that the release is active, and what it gave if it is new."""
        found: list[Resource | None] = []
        answered = self._try(uri, lambda: found.append(self._source.changed(uri, known)))
        return answered, found[0] if found else None

    def _judge(self) -> None:
        """Ask for the release alone: by a resource whose version is known, else by attesting, which is dearer."""
        for uri, known in self._asked.items():
            answered, found = self._ask(uri, known)
            if found is not None:
                self._asked[uri] = found.version
            if answered:
                return
            break  # one is enough: a broker that does not answer it does not answer the next
        if self._fresh.may_attest():
            self._try("release", self._source.login)

    def _try(self, what: str, ask: Callable[[], None]) -> bool:
        """Whether a broker answered and found the release active; what it said otherwise is a trouble."""
        began = self._fresh.now()
        try:
            ask()
        except CasemateError as error:
            self.troubles[what] = "refused" if isinstance(error, Refused) else type(error).__name__
            if isinstance(error, Refused) and any(f.rule in _REVOKED and not f.ok for f in error.findings):
                self._revoked(error)
            return False
        self.troubles.pop(what, None)
        self._fresh.confirm(began)
        return True

    def _replace(self, uri: str, found: Resource) -> list[Kept]:
        """Write a new value to all that show it; where one can't be written, the next round tries all again."""
        users = [kept for kept in self._kept if kept.secret.resource == uri]
        written = [self._guarded(uri, partial(write, kept, found.value)) for kept in users]
        if not all(written):
            return []
        self._versions[uri] = found.version
        return users

    def _guarded(self, what: str, act: Callable[[], object]) -> bool:
        """Whether it went well; otherwise it is a trouble, and what comes after it is done all the same."""
        try:
            act()
        except Exception as error:  # noqa: BLE001 - whatever fails here must not hide a later revocation
            self.troubles[what] = checks.where(error)
            return False
        return True

    def _poll(self) -> None:
        while not self._stop.wait(self._seconds):
            if self._guarded("round", self.refresh):
                self.troubles.pop("round", None)
