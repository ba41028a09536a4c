"""Where genuine published evidence lies on this machine, if it does: it is not part of the repository."""

from __future__ import annotations

import os
from pathlib import Path

_BESIDE = Path(__file__).resolve().parents[3].parent / "shared" / "evidence"


def folder(*parts: str) -> Path | None:
    """A folder or file of the evidence set, or None when it is not here; `CASEMATE_EVIDENCE` names another place."""
    root = Path(os.environ.get("CASEMATE_EVIDENCE") or _BESIDE)
    found = root.joinpath(*parts)
    return found if found.exists() else None
