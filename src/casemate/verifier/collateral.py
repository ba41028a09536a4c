"""Gathering collateral before a verification: evidence in files says what is wanted, a Fetch gets it into a store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from casemate.drivers.collateral import Entry
from casemate.errors import Malformed, Unusable
from casemate.schema.evidence import Evidence


def endorse(paths: Sequence[Path], fetch: Callable[[str], bytes]) -> list[str]:
    """Have the room of each evidence in `paths` (files or folders) gather what it needs; the TEEs that were found.

    `Unusable` when there is no evidence that a room knows, or what a room needs is not to be had.
    """
    from casemate.tee import composite, room

    found = evidence(paths)
    if not found:
        raise Unusable("no file is evidence that a room knows", hint="name the evidence, or use --url")
    for one in found:
        for part in (one, *composite.devices(one)):
            room(part.tee).endorse(part, fetch)
    return [one.tee for one in found]


def evidence(paths: Sequence[Path]) -> list[Evidence]:
    """Every room's evidence in the files; of one that is part of another's, only the whole."""
    from casemate.tee import ROOMS, files, gatherer

    case = files.sort(list(_read(paths)))
    found: dict[str, Any] = {}
    for tee in ROOMS:
        try:
            gathered = gatherer(tee)(case)
        except ModuleNotFoundError:  # a room without evidence in files
            continue
        if gathered is not None:
            found[tee] = gathered
    covered = {tee for gathered in found.values() for tee in gathered.covers if gathered.evidence.tee != tee}
    return [gathered.evidence for tee, gathered in found.items() if tee not in covered]


def ending(entries: Iterable[Entry], now: datetime, days: int) -> list[Entry]:
    """Those that have ended or end within `days`."""
    edge = now + timedelta(days=days)
    return [entry for entry in entries if entry.expires is not None and entry.expires <= edge]


def _read(paths: Sequence[Path]) -> Iterable[Any]:
    from casemate.tee import files

    listed = [p for path in paths for p in (sorted(path.iterdir()) if path.is_dir() else [path])]
    for path in (p for p in listed if not p.is_dir() and not p.name.startswith(".")):
        try:
            with path.open("rb") as file:
                data = file.read(files.MAX_SIZE + 1)
        except OSError as error:
            raise Unusable(f"{path} cannot be read: {error.strerror}") from error
        if len(data) > files.MAX_SIZE:
            raise Malformed(f"{path}: more than {files.MAX_SIZE} bytes")
        yield files.File(path.name, data)
