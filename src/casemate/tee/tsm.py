"""The kernel's one interface to TEE reports, configfs-tsm: a folder is made, the nonce written, the report read.

Standard: Linux Documentation/ABI/testing/configfs-tsm-report. `generation` counts writes, so that a report read while
somebody else wrote into the same folder is noticed.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from casemate.errors import Unavailable, Unusable

REPORTS = Path("/sys/kernel/config/tsm/report")


@dataclass(frozen=True)
class Report:
    """`out` is the report or quote; `aux` what the host added (certificates), empty when nothing."""

    out: bytes
    aux: bytes


def provider(reports: Path = REPORTS) -> str:
    """Whose reports the kernel offers, such as ``sev_guest``; empty where it offers none."""
    folder = reports / f"casemate-{os.getpid()}-{os.urandom(4).hex()}"
    try:
        folder.mkdir()
        try:
            return (folder / "provider").read_text().strip()
        finally:
            with contextlib.suppress(OSError):
                folder.rmdir()
    except OSError:
        return ""


def collect(nonce: bytes, provider: str, *, reports: Path = REPORTS, privilege_level: int | None = None) -> Report:
    """A report over the 64 bytes of `nonce` by `provider`; `Unusable` where the kernel offers none of it."""
    if not reports.is_dir():
        raise Unusable(
            f"the kernel offers no TEE reports ({reports} is not there)", hint="mount configfs, load the driver"
        )
    folder = reports / f"casemate-{os.getpid()}-{os.urandom(4).hex()}"
    try:
        folder.mkdir()
        try:
            return _read(folder, nonce, provider, privilege_level)
        finally:
            with contextlib.suppress(OSError):
                folder.rmdir()
    except OSError as error:
        raise Unavailable(f"the kernel gave no report: {error.strerror or error}") from error


def _read(folder: Path, nonce: bytes, provider: str, privilege_level: int | None) -> Report:
    found = (folder / "provider").read_text().strip()
    if found != provider:
        raise Unusable(f"the kernel's reports are of {found[:32]!r}, {provider!r} wanted")
    before = int((folder / "generation").read_text())
    if privilege_level is not None:
        (folder / "privlevel").write_text(str(privilege_level))
        before += 1
    (folder / "inblob").write_bytes(nonce)
    out = (folder / "outblob").read_bytes()
    aux = b""
    with contextlib.suppress(OSError):  # a provider without certificates has no auxblob to read
        aux = (folder / "auxblob").read_bytes()
    if int((folder / "generation").read_text()) != before + 1:
        raise Unavailable("the report's folder was written to by somebody else; try again")
    return Report(out, aux)
