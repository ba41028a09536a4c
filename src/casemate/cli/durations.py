"""Durations on the command line: `90`, `90s`, `15m`, `12h`, `7d`."""

from __future__ import annotations

import re

import click

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def duration(text: str) -> int:
    """Whole seconds, or a usage error."""
    found = re.fullmatch(r"([0-9]{1,9})([smhd]?)", text)
    if found is None:
        raise click.BadParameter(f"{text!r} is not a duration such as 90s, 15m, 12h or 7d")
    return int(found[1]) * _UNITS[found[2]]
