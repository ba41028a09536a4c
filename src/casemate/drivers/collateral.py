"""Collateral in files: what vendors said, by the URL that a room asks for. Read offline; nothing is fetched here.

Rules
1. A store is a folder with one file a URL, named by the URL's SHA-256 and carrying the SHA-256 of its content. It is
   replaced in one step, so that readers and other writers never see a half of one; a damaged one is `Unusable`.
2. A bundle is the same entries in one JSON file, for machines without a network. `Store` reads both.
3. Everything is bounded: URL, body, number of entries, bundle.
4. Nothing in a store is trusted: every document is signed by its vendor, and the rooms verify it.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Annotated
from urllib.parse import urldefrag, urlsplit

import msgspec
from msgspec import Meta

from casemate.drivers import keyfiles, statements, userfiles
from casemate.errors import Malformed, Unavailable, Unusable

FORMAT = "casemate-collateral/1"
MAX_URL = 4096
MAX_ENTRIES = 4096
MAX_BUNDLE = 128 << 20
_MAX_FILE = 2 * statements.MAX_BODY
_CHAIN = "-chain"  # the ending of the headers that are kept: issuer chains
MAX_CHAIN = 64 << 10
_SUFFIX = ".json"
_KEPT, _MOST_KEPT = 64, 64 << 10  # entries that were read, and are good while their file stays as it was


class Absent(Unusable, Unavailable):
    """Collateral that a store does not hold; `url` is what is missing.

    To people it is input that cannot be judged; to a room that gathers it is a service that gives no answer.
    """

    def __init__(self, url: str, hint: str = "") -> None:
        self.url = url
        super().__init__(f"collateral is missing: {url[:MAX_URL]}", hint=hint or _how(url))


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One answer. `chains` are its headers with issuer chains, by lower-case name; times have time zones."""

    url: Annotated[str, Meta(min_length=1, max_length=MAX_URL)]
    digest: str
    kind: str
    about: str
    fetched: Annotated[datetime, Meta(tz=True)]
    expires: Annotated[datetime, Meta(tz=True)] | None
    chains: Annotated[dict[str, str], Meta(max_length=8)]
    body: bytes


_READ: dict[Path, tuple[tuple[int, ...], Entry]] = {}
_OPENED: dict[Path, tuple[tuple[int, ...], Store]] = {}
_MOST_OPENED = 2
_SETTLED = 2_000_000_000  # ns: within the step of a file system's clock, a second change may show the same time


class _Bundle(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: str
    entries: Annotated[list[Entry], Meta(max_length=MAX_ENTRIES)]


def entry(url: str, body: bytes, headers: Iterable[tuple[str, str]], fetched: datetime) -> Entry:
    """The entry of an answer; `Malformed` when it is nothing that a vendor would say (`statements.read`)."""
    if len(url) > MAX_URL or not url.startswith(("https://", "http://")) or not urlsplit(url).hostname or "#" in url:
        raise Malformed(f"a URL that collateral cannot have: {url[:200]!r}")
    chains = {name.lower(): value for name, value in headers if name.lower().endswith(_CHAIN)}
    if any(len(name) > 64 or len(value) > MAX_CHAIN for name, value in chains.items()):
        raise Malformed("a header with an issuer chain that is too long")
    said = statements.read(body, chains)
    return Entry(
        url=url,
        digest=_digest(said.body),
        kind=said.kind,
        about=said.about,
        fetched=fetched,
        expires=said.expires,
        chains=chains,
        body=said.body,
    )


class Store:
    """A store's folder or a bundle's file. Only a folder can be written to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._bundle: dict[str, Entry] | None = None
        if path.is_file():
            self._bundle = {e.url: e for e in read_bundle(path)}
        elif not path.is_dir():
            raise Unusable(f"no collateral at {path}", hint="casemate collateral fetch PATH makes a store")
        elif not _is_store(path):
            raise Unusable(f"{path} is a folder of something else", hint="name a store, or a new or empty folder")

    @classmethod
    def make(cls, folder: Path) -> Store:
        """The store in `folder`, made when absent."""
        try:
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        except OSError as error:
            raise Unusable(f"{folder} cannot be used: {error.strerror}") from error
        return cls(folder)

    def fetch(self, url: str) -> bytes:
        """The body of a URL; with a fragment the value of that header. What is not there is `Absent`."""
        base, name = urldefrag(url)
        found = self.get(base)
        if found is None:
            raise Absent(base)
        if not name:
            return found.body
        if name.lower() not in found.chains:
            raise Absent(url, f"fetch it again: {_how(base)} --refresh")
        return found.chains[name.lower()].encode("ascii", "replace")

    def get(self, url: str) -> Entry | None:
        """The entry of a URL, or None."""
        if self._bundle is not None:
            return self._bundle.get(url)
        return self._read(_place(self.path, url), url)

    def entries(self) -> Iterator[Entry]:
        """Every entry, in the order of URLs' digests; files of other names are left alone."""
        if self._bundle is not None:
            yield from self._bundle.values()
            return
        for path in self._files():
            found = self._read(path, None)
            if found is not None:
                yield found

    def put(self, new: Entry) -> None:
        """Keep an entry in place of an older one."""
        if self._bundle is not None:
            raise Unusable(f"{self.path} is a bundle, which is only read", hint="casemate collateral import BUNDLE")
        path = _place(self.path, new.url)
        if not path.exists() and len(self._files()) >= MAX_ENTRIES:
            raise Unusable(
                f"{self.path} holds {MAX_ENTRIES} entries", hint="casemate collateral show; start a new store"
            )
        keyfiles.write(path, msgspec.json.encode(new), mode=0o644)

    def _files(self) -> list[Path]:
        named = (p for p in self.path.glob(f"*{_SUFFIX}") if len(p.stem) == 64)
        return sorted(named)[: MAX_ENTRIES + 1]

    def _read(self, path: Path, url: str | None) -> Entry | None:
        """The entry in a file; `url` is the one that it must be of."""
        try:
            seen = _stamp(path)
            if seen is None:
                return None
            kept = _READ.get(path)
            if kept is not None and kept[0] == seen and url == kept[1].url:
                return kept[1]
            data = userfiles.read(path, _MAX_FILE)
            found = msgspec.json.decode(data, type=Entry)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _damaged(path) from error
        if _digest(found.body) != found.digest or _name(found.url) != path.name or url not in (None, found.url):
            raise _damaged(path)
        if url is not None and _stamp(path) == seen and len(data) <= _MOST_KEPT:
            while len(_READ) >= _KEPT:
                _READ.pop(next(iter(_READ)), None)
            _READ[path] = seen, found
        return found


def _stamp(path: Path) -> tuple[int, ...] | None:
    """What is another one when a file was replaced or written to; None when there is none."""
    try:
        told = os.stat(path)  # noqa: PTH116 - at every request
    except (FileNotFoundError, NotADirectoryError):
        return None
    return told.st_dev, told.st_ino, told.st_size, told.st_mtime_ns, told.st_ctime_ns


def _is_store(folder: Path) -> bool:
    """Whether nothing is in the folder but what a store keeps there."""
    try:
        seen = [entry.name for entry in islice(os.scandir(folder), 64)]
    except OSError as error:
        raise Unusable(f"{folder} cannot be read: {error.strerror}") from error
    kept = [n for n in seen if n.startswith(("host-", ".")) or (len(n) == 64 + len(_SUFFIX) and n.endswith(_SUFFIX))]
    return not seen or bool(kept)


def write_bundle(path: Path, entries: Iterable[Entry]) -> int:
    """Write entries as one file, in the order of URLs; returns how many."""
    ordered = sorted(entries, key=lambda e: e.url)
    data = msgspec.json.encode(_Bundle(format=FORMAT, entries=ordered))
    if len(data) > MAX_BUNDLE:
        raise Unusable(f"the bundle would have {len(data)} bytes, at most {MAX_BUNDLE} are read")
    keyfiles.write(path, msgspec.json.format(data, indent=1), mode=0o644, parents=False)
    return len(ordered)


def read_bundle(path: Path) -> list[Entry]:
    """A bundle's entries. Kind, subject and expiry are told anew from the bytes; `Malformed` names what is wrong."""
    data = userfiles.read(path, MAX_BUNDLE)
    try:
        bundle = msgspec.json.decode(data, type=_Bundle)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"{path}: no collateral bundle ({error})") from error
    if bundle.format != FORMAT:
        raise Malformed(f"{path}: format {bundle.format[:40]!r}, {FORMAT!r} is known")
    return [_checked(found, path) for found in bundle.entries]


def add(store: Store, entries: Iterable[Entry]) -> tuple[int, int]:
    """Import: (taken, left). One that is good for longer, or as long and fetched later, is not replaced by another."""
    taken = left = 0
    for new in entries:
        old = store.get(new.url)
        if old is not None and _age(old) >= _age(new):
            left += 1
            continue
        store.put(new)
        taken += 1
    return taken, left


def offline(path: Path | None) -> Callable[[str], bytes]:
    """The Fetch of a store that may not be there: without one, everything is `Absent`.

    A store is looked at anew when its folder or its file is another one than before, or was written to.
    """
    seen = None if path is None else _stamp(path)
    if path is not None and seen is not None:
        kept = _OPENED.get(path)
        if kept is None or kept[0] != seen:
            kept = seen, Store(path)
            while len(_OPENED) >= _MOST_OPENED:
                _OPENED.pop(next(iter(_OPENED)), None)
            if time.time_ns() - max(seen[-2:]) > _SETTLED:
                _OPENED[path] = kept
        return kept[1].fetch

    def nothing(url: str) -> bytes:
        raise Absent(urldefrag(url)[0])

    return nothing


def _checked(found: Entry, path: Path) -> Entry:
    if _digest(found.body) != found.digest:
        raise Malformed(f"{path}: {found.url[:200]} has another digest than its entry says")
    try:
        return entry(found.url, found.body, found.chains.items(), found.fetched)
    except Malformed as error:
        raise Malformed(f"{path}: {found.url[:200]}: {error}") from error


def _age(found: Entry) -> tuple[float, float]:
    return (found.expires.timestamp() if found.expires else float("inf"), found.fetched.timestamp())


def _damaged(path: Path) -> Unusable:
    return Unusable(f"{path} is damaged", hint=f"rm {path}, then fetch it again")


def _how(url: str) -> str:
    return f"casemate collateral fetch EVIDENCE, or casemate collateral fetch --url '{url[:MAX_URL]}'"


@lru_cache(maxsize=256)
def _place(folder: Path, url: str) -> Path:
    return folder / _name(url)


def _name(url: str) -> str:
    return hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest() + _SUFFIX


def _digest(body: bytes) -> str:
    return "sha256:" + hashlib.sha256(body).hexdigest()
