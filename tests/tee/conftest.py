"""Genuine evidence for tests: `CASEMATE_EVIDENCE`, else ../shared/evidence beside the repository. Never committed.

A test module names its TEE in `TEE` and takes the fixture `genuine`: it runs once for each sample of that TEE.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

TIMELESS = "2026-01-01T00:00:00+00:00"  # for a sample that no time makes better


@dataclass(frozen=True)
class Genuine:
    """One sample of the index."""

    id: str
    verdict: str
    facts: dict[str, Any]
    as_of: datetime
    window: tuple[datetime, datetime] | None
    folder: Path

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()


def evidence_root() -> Path:
    default = Path(__file__).resolve().parents[3] / "shared" / "evidence"
    return Path(os.environ.get("CASEMATE_EVIDENCE", default))


def samples(tee: str) -> list[Genuine]:
    index = evidence_root() / "index.json"
    if not index.is_file():
        return []
    found = []
    for entry in json.loads(index.read_text())["samples"]:
        if entry["tee"] == tee and entry["verdict"] != "not-evidence":
            window = entry["valid_window"]
            found.append(
                Genuine(
                    id=entry["id"],
                    verdict=entry["verdict"],
                    facts=entry["facts"],
                    as_of=datetime.fromisoformat(entry["as_of"] or TIMELESS),
                    window=(datetime.fromisoformat(window[0]), datetime.fromisoformat(window[1])) if window else None,
                    folder=evidence_root() / entry["id"],
                )
            )
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "genuine" in metafunc.fixturenames:
        found = samples(metafunc.module.TEE)
        skip = pytest.mark.skip(reason=f"no genuine evidence at {evidence_root()}: set CASEMATE_EVIDENCE")
        params = [pytest.param(s, id=s.id) for s in found] or [pytest.param(None, id="none", marks=skip)]
        metafunc.parametrize("genuine", params)


@pytest.fixture
def genuine_by_id() -> Callable[[str], Genuine]:
    """The sample of a name; skips where there is no genuine evidence."""

    def find(name: str) -> Genuine:
        for found in samples(name.partition("/")[0]):
            if found.id == name:
                return found
        pytest.skip(f"no genuine evidence at {evidence_root()}: set CASEMATE_EVIDENCE")

    return find
