"""Files that grow while a workload runs, kept small: the console, QEMU's own messages, the containers' output."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from casemate.host.state import as_text

LOG = "log.jsonl"
MAX_CONSOLE = 1 << 20
MAX_LOG = 8 << 20
LAST_LINES = 40
_TAIL = 64 << 10
_ESCAPE = re.compile(r"\x1b(\[[0-9;?=]*[A-Za-z]|[()][A-Za-z0-9]|[=>78cM])")  # the firmware drives a terminal


def private(path: Path, mode: str) -> BinaryIO:
    """Open a binary file that only its owner may read; `mode` is `wb`, `ab` or `xb`."""
    flags = {"wb": os.O_TRUNC, "ab": os.O_APPEND, "xb": os.O_EXCL}[mode]
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | flags, 0o600)
    return os.fdopen(handle, "wb")


def trim(path: Path, limit: int = MAX_CONSOLE) -> None:
    """Cut a file that another process appends to down to its last 64 KiB once it is longer than `limit`."""
    try:
        if path.stat().st_size <= limit:
            return
        tail = _tail(path)
        with path.open("r+b") as file:
            file.truncate(0)
        with path.open("ab") as file:
            file.write(b"[earlier lines were dropped]\n" + tail)
    except OSError:
        return


def last_lines(path: Path, count: int = LAST_LINES) -> list[str]:
    """The last printable lines of a log, each at most 300 characters."""
    try:
        text = _tail(path).decode("utf-8", "replace")
    except OSError:
        return []
    lines = [_ESCAPE.sub("", line).replace("\r", "") for line in text.split("\n")]
    return [as_text(line, 300) for line in lines if line.strip()][-count:]


def append_log(folder: Path, record: dict[str, Any]) -> None:
    """Add a container's output; at 8 MiB the file becomes the older half and a new one begins."""
    path = folder / LOG
    with private(path, "ab") as file:
        file.write(msgspec.json.encode(record) + b"\n")
        file.flush()
        full = os.fstat(file.fileno()).st_size > MAX_LOG
    if full:
        path.replace(folder / (LOG + ".old"))


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
        return file.read(_TAIL)
