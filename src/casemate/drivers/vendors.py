"""Asking vendors' services for collateral: only those that rooms name, one request at a time, no faster than they like.

Rules
1. A URL is asked for only below a service's base: those of the rooms (`SERVICES` in their `endorse.py`: base → least
   seconds between two requests), and what the settings add. Evidence names no hosts.
2. A service may have a mirror (a PCCS, a cache of one's own) with a CA or a pinned key. Redirects are not followed.
3. Between two requests to one host lies its gap, also between two processes: the host's file in the store is locked
   during a request and says when the next one may be made. 429 and 503 move that time by their Retry-After.
4. A certificate that is still valid is never asked for again; the rest once a day.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import pkgutil
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated
from urllib.parse import urldefrag, urlsplit

import msgspec
from msgspec import Meta

from casemate.drivers import collateral, http, statements, userfiles
from casemate.drivers.collateral import Entry, Store
from casemate.errors import Malformed, Unavailable, Unusable

FILE = "collateral.toml"
GAP = 1.0
_MAX_SETTINGS = 1 << 20
DAY = timedelta(days=1)
_DEFAULT_WAIT = 10.0  # where a service that is too busy does not say for how long
_LONGEST = 3600.0
_BUSY = (429, 503)


class Service(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A service: `base` is the beginning of the URLs that rooms ask for, `mirror` what is asked in its place.

    `ca` is a PEM file, in place of the system's CAs; `pin` the one key that is trusted (`sha256:<hex>`). `insecure`
    allows plain HTTP, as for some vendors' revocation lists: collateral is signed, a forger can withhold but not lie.
    """

    base: Annotated[str, Meta(pattern=r"^https?://[^\s#?]+$", max_length=1024)]
    mirror: Annotated[str, Meta(max_length=1024)] = ""
    ca: Path | None = None
    pin: str | None = None
    insecure: bool = False
    gap_seconds: Annotated[float, Meta(ge=0, le=600)] | None = None


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`collateral.toml`. `patience_seconds` is how long one answer may take, waits for a busy service included."""

    service: tuple[Service, ...] = ()
    warn_days: Annotated[int, Meta(ge=0, le=3650)] = 7
    timeout_seconds: Annotated[float, Meta(gt=0, le=600)] = 30.0
    patience_seconds: Annotated[float, Meta(gt=0, le=86400)] = 300.0


def load(path: Path | None) -> Settings:
    """The settings in a file; None is all defaults. Relative `ca` paths start at the file's folder."""
    if path is None:
        return Settings()
    try:
        document = tomllib.loads(userfiles.read(path, _MAX_SETTINGS).decode("utf-8"))
        found = msgspec.convert(document, Settings, dec_hook=_path)
    except (ValueError, msgspec.ValidationError) as error:
        raise Malformed(f"{path}: {error}") from error
    moved = (msgspec.structs.replace(s, ca=path.parent / s.ca) if s.ca else s for s in found.service)
    return msgspec.structs.replace(found, service=tuple(moved))


def services(settings: Settings) -> tuple[Service, ...]:
    """The rooms' services and the settings', the longest base first; the settings have the last word."""
    known = {base: Service(base=base, gap_seconds=gap, insecure=base.startswith("http:")) for base, gap in _named()}
    for given in settings.service:
        gap = given.gap_seconds
        if gap is None:
            inherited = known[given.base].gap_seconds if given.base in known and not given.mirror else None
            gap = GAP if inherited is None else inherited
        known[given.base] = msgspec.structs.replace(given, gap_seconds=gap)
    return tuple(sorted(known.values(), key=lambda s: len(s.base), reverse=True))


def _named() -> Iterator[tuple[str, float]]:
    """The services that the rooms and their shared walls name."""
    from casemate import tee

    for found in pkgutil.iter_modules(tee.__path__):
        module = f"casemate.tee.{found.name}.endorse"
        if found.ispkg and find_spec(module) is not None:
            bases: dict[str, float] = getattr(import_module(module), "SERVICES", {})
            yield from bases.items()


class Fetcher:
    """A Fetch for rooms that fills a store. `fetched` and `kept` are the URLs that were asked for and that were not."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        *,
        refresh: bool = False,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.store, self.settings, self.refresh, self.clock, self.note = store, settings, refresh, clock, note
        self.fetched: list[str] = []
        self.kept: list[str] = []
        self._services = services(settings)

    def fetch(self, url: str) -> bytes:
        """As `Store.fetch`, after asking the service where that is due."""
        base, _ = urldefrag(url)
        if base not in self.fetched and base not in self.kept:
            self._renew(base)
        return self.store.fetch(url)

    def _renew(self, url: str) -> None:
        old, now = self.store.get(url), self.clock()
        if old is not None and not self.refresh and not is_due(old, now):
            self.kept.append(url)
            return
        try:
            self.store.put(self._ask(url))
        except Unavailable as error:
            if old is None or (old.expires is not None and old.expires <= now):
                raise
            self.note(f"{error}; what is in the store is good until {_day(old.expires)}")
            self.kept.append(url)
            return
        self.fetched.append(url)

    def _ask(self, url: str) -> Entry:
        service = next((s for s in self._services if _below(s.base, url)), None)
        if service is None:
            raise Unusable(
                f"{url[:200]} belongs to no known service", hint=f"add a [[service]] with its base to {FILE}"
            )
        asked = service.mirror + url[len(service.base) :] if service.mirror else url
        answer = self._answer(service, asked)
        if answer.status != 200:
            raise Unavailable(*_refusal(asked, answer.status))
        try:
            return collateral.entry(url, answer.body, answer.headers.items(), self.clock())
        except Malformed as error:
            raise Unavailable(f"{asked[:200]} gave no collateral: {error}", hint="is that the service?") from error

    def _answer(self, service: Service, asked: str) -> http.Response:
        """One answer that is not "too busy", each request in its turn."""
        patience = time.monotonic() + self.settings.patience_seconds
        while True:
            with self._turn(asked, patience) as turn:
                answer = http.request(
                    "GET", asked, headers={"Accept": "*/*", "User-Agent": "casemate"}, pin=service.pin, ca=_ca(service),
                    timeout=self.settings.timeout_seconds, total=2 * self.settings.timeout_seconds,
                    limit=statements.MAX_BODY, insecure=service.insecure,
                )  # fmt: skip
                busy = answer.status in _BUSY
                turn.next = time.time() + (_retry_after(answer) if busy else service.gap_seconds or 0.0)
            if not busy:
                return answer
            self.note(f"{urlsplit(asked).netloc} is busy ({answer.status}), it asks for another try later")

    @contextmanager
    def _turn(self, asked: str, patience: float) -> Iterator[_Turn]:
        """The host's file, locked, when its time has come; `next` is written when the block ends, also by an error."""
        name = hashlib.sha256(urlsplit(asked).netloc.encode()).hexdigest()[:32]
        handle = os.open(self.store.path / f"host-{name}.turn", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            wait = _until(os.pread(handle, 32, 0))
            if wait > max(0.0, patience - time.monotonic()):
                raise Unavailable(f"{urlsplit(asked).netloc} wants to be left alone for {wait:.0f} s", hint="try later")
            if wait:
                time.sleep(wait)
            turn = _Turn(time.time() + GAP)
            try:
                yield turn
            finally:
                os.ftruncate(handle, 0)
                os.pwrite(handle, f"{turn.next:.3f}".encode(), 0)
        finally:
            os.close(handle)


class _Turn:
    def __init__(self, next_: float) -> None:
        self.next = next_


def is_due(entry: Entry, now: datetime) -> bool:
    """Whether to ask again: past its end, or a statement that a vendor may have replaced since yesterday."""
    if entry.expires is not None and entry.expires <= now:
        return True
    return entry.kind != statements.CERTIFICATE and entry.fetched + DAY <= now


def _below(base: str, url: str) -> bool:
    return url == base or (url.startswith(base) and (base.endswith("/") or url[len(base)] in "/?"))


def _refusal(asked: str, status: int) -> tuple[str]:
    where = asked[:300]
    if 300 <= status < 400:
        return (f"{where} sends us elsewhere ({status}); redirects are not followed",)
    return (f"{where} has nothing ({status})" if status in (404, 410) else f"{where} answered {status}",)


def _retry_after(answer: http.Response) -> float:
    """Seconds of a Retry-After header (RFC 9110 section 10.2.3), bounded."""
    said = answer.headers.get("retry-after", "").strip()
    if said.isdigit():
        seconds = float(said[:9])
    else:
        try:
            seconds = parsedate_to_datetime(said).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            seconds = _DEFAULT_WAIT
    return min(max(seconds, 1.0), _LONGEST)


def _until(text: bytes) -> float:
    """Seconds until the time in a host's file; a clock that was set back can't make it long."""
    try:
        return min(max(0.0, float(text) - time.time()), _LONGEST) if text else 0.0
    except ValueError:
        return GAP


def _ca(service: Service) -> str | None:
    if service.ca is None:
        return None
    try:
        return service.ca.read_text("ascii")[: 1 << 20]
    except (OSError, ValueError) as error:
        raise Unusable(f"{service.ca}: the CA's certificates cannot be read") from error


def _day(when: datetime | None) -> str:
    return f"{when:%Y-%m-%d}" if when else "further notice"


def _path(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise NotImplementedError(kind)  # msgspec's way to hear that a hook does not know a type
