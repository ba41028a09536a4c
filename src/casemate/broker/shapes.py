"""Message types are made ready before the first request, in one thread.

msgspec (0.22 and before) works out a type's shape when the type is used first and shows it to other threads half made:
two requests that are the first of their kind at the same moment end the process with a segmentation fault. A replica
that starts under load meets that. So everything that may be converted while serving is imported and worked out here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import msgspec

from casemate import schema, tee

_PARTS = ("endorse", "files", "report", "verify", "wire")  # of a room
_WALLS = ("casemate.tee.composite", "casemate.tee.files", "casemate.tee.dcap.collateral")
_ready: set[type] = set()


def ready(refused_tees: tuple[str, ...] = ()) -> int:
    """Import what requests may import and work out every type; how many were new."""
    for name in _modules(refused_tees):
        with contextlib.suppress(ImportError):  # a room whose extra is not installed says so when it is asked
            import_module(name)
    new = [kind for kind in _subclasses(msgspec.Struct) if kind not in _ready]
    for kind in new:
        with contextlib.suppress(TypeError, NameError):  # types that are never converted need no shape
            msgspec.json.Decoder(kind)
        _ready.add(kind)
    return len(new)


def _modules(refused_tees: tuple[str, ...]) -> Iterator[str]:
    yield from (f"{schema.__name__}.{found.name}" for found in iter_modules(schema.__path__))
    yield from _WALLS
    for name, room in tee.ROOMS.items():
        if name not in refused_tees:
            yield room
            yield from (f"{room}.{part}" for part in _PARTS)


def _subclasses(kind: Any) -> Iterator[Any]:
    for found in kind.__subclasses__():
        yield found
        yield from _subclasses(found)
