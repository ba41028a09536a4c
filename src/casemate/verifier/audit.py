"""Receipts of a period, fetched or from files, each verified, and what is missing among them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from casemate.errors import Malformed, Refused, Unusable
from casemate.ledger import entry as papers
from casemate.ledger import history, receipt
from casemate.ledger.history import History
from casemate.ledger.receipt import Receipt, Verified
from casemate.verifier import log as logs

Page = Callable[[int], list[dict[str, Any]]]
"""The receipts above a number, in order; none when there are no more."""
Rows = list[tuple[str, Verified]]
"""Receipts by id, verified."""

MAX_FILES_BYTES = 256 << 20
SKEW = 60_000


def fetched(page: Page) -> list[Receipt]:
    """Every receipt of a period, page by page."""
    found: list[Receipt] = []
    last = -1
    while rows := page(last):
        found += [receipt.from_document(row) for row in rows]
        if found[-1].index <= last:
            raise Malformed("receipts: the broker repeats itself")
        last = found[-1].index
    return found


def read(paths: Iterable[Path]) -> list[Receipt]:
    """Receipts from files; a folder stands for the `.json` files in it. The same entry twice counts once."""
    files = [file for path in paths for file in (sorted(path.glob("*.json")) if path.is_dir() else [path])]
    found, left = dict[int, Receipt](), MAX_FILES_BYTES
    for file in files:
        try:
            with file.open("rb") as source:
                data = source.read(min(receipt.MAX_RECEIPT, left) + 1)
        except OSError as error:
            raise Unusable(f"{file}: {error.strerror}") from error
        left -= len(data)
        try:
            one = receipt.parse(data)
        except Malformed as error:
            raise Malformed(f"{file}: {error}") from error
        found.setdefault(one.index, one)
    return [found[index] for index in sorted(found)]


def verified(found: Iterable[Receipt], log: History) -> Rows:
    """Each receipt's id and what it proves; `Refused` with the rules that one of them breaks."""
    made = []
    for one in found:
        try:
            made.append((one.id, receipt.verify(one, log)))
        except Refused as refusal:
            raise Refused(refusal.findings, f"receipt {one.id} is refused: {refusal}") from refusal
    return made


def of_period(found: Rows, since: str, until: str) -> Rows:
    """Those whose entry is of the time; `until` is excluded."""
    first, last = history.millis(since, "since"), history.millis(until, "until")
    return [one for one in found if first <= one[1].entry.time < last]


def missing(found: Rows, fetch: logs.Fetch, log: History, since: str, until: str) -> list[list[int]]:
    """Ranges of numbers that are entries of the time and have no receipt here: somebody keeps them back.

    Replicas' clocks differ by a little, so entries are not quite in the order of their times: a minute more on either
    side is looked at.
    """
    first, last = history.millis(since, "since"), history.millis(until, "until")
    entries, here = logs.Entries(fetch, logs.newest(fetch, log)), {one.index for _, one in found}
    ranges: list[list[int]] = []
    for number in range(entries.since(first - SKEW), entries.since(last + SKEW)):
        if number in here or not first <= papers.parse(entries(number).entry).time < last:
            continue
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ranges
