"""A client of a broker's log: files of it, and receipts by their id. Always to a pinned key."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from casemate.drivers import http
from casemate.errors import Unavailable, Unusable

PATH = "/casemate/v0/log/"
_LIMIT = 32 << 20  # a bundle of 256 entries of 64 KiB, and room


@contextmanager
def reading(url: str, pin: str) -> Iterator[Callable[[str], bytes]]:
    """What fetches a file of the log by its path, over one connection."""
    with http.Connection(url.rstrip("/"), pin=pin) as connection:

        def fetch(path: str) -> bytes:
            return _whole(connection.request("GET", PATH + path, limit=_LIMIT), f"the log's {path}")

        yield fetch


def receipt(url: str, pin: str, number: str) -> bytes:
    """A receipt's JSON."""
    answer = http.request("GET", f"{url.rstrip('/')}/casemate/v0/receipts/{number}", pin=pin)
    return _whole(answer, f"receipt {number}")


def _whole(answer: http.Response, what: str) -> bytes:
    if answer.status == 200:
        return answer.body
    if answer.status in (429, 503):
        raise Unavailable("the broker is busy or not ready", hint="try again in a moment")
    raise Unusable(f"the broker has not {what} (HTTP {answer.status})")
