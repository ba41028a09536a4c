"""Gathering collateral before a verification: evidence in files says what is wanted, a Fetch gets it into a store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from casemate.drivers.collateral import Entry
from casemate.errors import Unusable
from casemate.schema.evidence import Evidence
from casemate.verifier import reading


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

    case = files.sort(reading.read(paths))
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
