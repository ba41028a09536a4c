"""Structured logs: one JSON object a line, with the id of the request that it belongs to.

A line holds what our code says of a request (method, the route's template, status, rules), never what stands in a path,
a query, a header or a body, or the text of an error that nobody foresaw.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path

HEADER = "X-Request-Id"
REQUEST: ContextVar[str] = ContextVar("request", default="")
_GIVEN = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MAX_LOG, _OLD_LOGS = 16 << 20, 3


def request_id(headers: list[tuple[bytes, bytes]]) -> str:
    """The caller's id when it is a plain word, else one of ours."""
    given = [value for name, value in headers if name == b"x-request-id"]
    if len(given) == 1 and _GIVEN.fullmatch(given[0]):
        return given[0].decode("ascii")
    return os.urandom(16).hex()


def log_to(path: Path | None) -> None:
    """Structured logs to a file (the newest 64 MiB are kept) or to stderr."""
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    if path:
        handler = Lines(path, maxBytes=_MAX_LOG, backupCount=_OLD_LOGS)
    handler.setFormatter(Json())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for name in ("alembic", "uvicorn.error", "uvicorn.access", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # No line says where in the code it was written, or by which thread: nothing of that is looked up.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


class Lines(RotatingFileHandler):
    """As its parent, but a record is formatted once, and the file's size is what was written, not asked for each line.

    A file that is none (a pipe, a terminal) is never rotated.
    """

    _size = -1

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line at once; its characters are all ASCII."""
        try:
            line = self.format(record) + self.terminator
            if self.stream is None:
                self.stream = self._open()
            if self._size < 0:
                self._size = self.stream.tell() if Path(self.baseFilename).is_file() else 0
                self.maxBytes *= Path(self.baseFilename).is_file()
            if self.maxBytes and self._size + len(line) > self.maxBytes:
                self.doRollover()
                self._size = 0
            self.stream.write(line)
            self.stream.flush()
            self._size += len(line)
        except Exception:  # noqa: BLE001 - as every handler: a log that fails stops nothing
            self.handleError(record)


class Json(logging.Formatter):
    """One line a record."""

    def format(self, record: logging.LogRecord) -> str:
        """A traceback names frames, never values."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": time, "level": record.levelname.lower(), "logger": record.name, "message": record.getMessage()}
        if asked := REQUEST.get():
            line["request_id"] = asked
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line)
