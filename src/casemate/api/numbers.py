"""Numbers in a query: plain ASCII digits, few enough to be looked at, within bounds."""

from __future__ import annotations

import re

from casemate.errors import Malformed


def number(text: str, name: str, least: int, most: int) -> int:
    """The number that a parameter holds, of at most 18 digits; `Malformed` outside of `least` to `most`."""
    if not re.fullmatch("[0-9]{1,18}", text) or not least <= int(text) <= most:
        raise Malformed(f"{name}: a number from {least} to {most} is wanted")
    return int(text)
