"""Paths and hosts as arguments: what an unset variable or a slip would turn into a wrong place is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from casemate.errors import Unusable

_LABEL = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = re.compile(rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*\.?")


class _Named(click.Path):
    """A path that is not empty: `Path("")` would be the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path; wrong use when it is empty."""
        if not str(value).strip():
            self.fail("empty; is a variable unset?", param, ctx)
        return super().convert(value, param, ctx)


PATH = _Named(path_type=Path)


def demand_new(file: Path, *, force: bool) -> None:
    """`Unusable` when there is something at `file`, unless it may be replaced."""
    if not force and (file.exists() or file.is_symlink()):
        raise Unusable(f"{file} is there already and is left alone", hint="name another file, or --force")


def host(_: click.Context, __: click.Parameter, value: str) -> str:
    """An IP address, or what may be a host name (RFC 1123); whether it is this machine's, `serve --check` says."""
    import ipaddress

    try:
        ipaddress.ip_address(value)
    except ValueError:
        if not _HOST.fullmatch(value) or value.rstrip(".").rsplit(".", 1)[-1].isdigit():
            raise click.BadParameter(f"{value!r} is neither an IP address nor a host name") from None
    return value
