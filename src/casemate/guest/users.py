"""Who a container's process is: the manifest's numeric user, else the image's, which may be a name."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from casemate.errors import Malformed
from casemate.guest import inside

_MAX_ID = (1 << 32) - 2
_MAX_GROUPS = 64


class User(NamedTuple):
    """Numeric ids, supplementary groups and the home folder."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    home: str = "/"


def find(wanted: str | None, image: str | None, root: Path) -> User:
    """`wanted` (uid or uid:gid) as it stands, else the image's `User` (name or uid, maybe :group).

    The image's passwd may say where the home of `wanted` is, never who it is: a login name may be a number.
    """
    lines = [line.split(":") for line in inside.read(root, "/etc/passwd").splitlines() if line.count(":") == 6]
    if wanted is not None:
        name, _, group = wanted.partition(":")
        uid = _number(name)
        named = next((line for line in lines if line[2] == str(uid)), None)
        return User(uid, _number(group) if group else uid, (), _home(named))
    name, _, group = (image or "0").partition(":")
    column = 2 if name.isdigit() else 0
    entry = next((line for line in lines if line[column] == name), None)
    if entry is None and not name.isdigit():
        raise Malformed(f"image: its user {name[:64]!r} is not in its /etc/passwd")
    uid = _number(entry[2] if entry else name)
    groups = [line.split(":") for line in inside.read(root, "/etc/group").splitlines() if line.count(":") == 3]
    gid = _group(group, groups) if group else _number(entry[3]) if entry else 0
    more: tuple[int, ...] = ()
    if entry is not None and not group:
        more = tuple(_number(line[2]) for line in groups if entry[0] in line[3].split(","))[:_MAX_GROUPS]
    return User(uid, gid, more, _home(entry))


def _home(entry: list[str] | None) -> str:
    return entry[5] if entry is not None and entry[5].startswith("/") else "/"


def _group(group: str, groups: list[list[str]]) -> int:
    if group.isdigit():
        return _number(group)
    entry = next((line for line in groups if line[0] == group), None)
    if entry is None:
        raise Malformed(f"image: its group {group[:64]!r} is not in its /etc/group")
    return _number(entry[2])


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 10 or int(text) > _MAX_ID:
        raise Malformed(f"image: {text[:32]!r} is not a user or group id")
    return int(text)
