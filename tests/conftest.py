"""What is skipped although it could run is a failure: nothing passes unseen.

That holds for tests of published evidence that lies here, and under CASEMATE_REQUIRE=1 for every missing program.
"""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

from casemate.testing import published

_PROGRAMS = "no apt to fetch it"  # of `casemate.testing.programs.Missing`
_WORDS = ("published evidence", "genuine evidence", "CASEMATE_EVIDENCE")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _demand(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _demand(report)
    return report


def _demand(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and isinstance(report.longrepr, tuple) and _unseen(str(report.longrepr[2])):
        report.outcome = "failed"
        report.longrepr = f"this could run, and yet: {report.longrepr[2]}"


def _unseen(reason: str) -> bool:
    if _PROGRAMS in reason:
        return os.environ.get("CASEMATE_REQUIRE") == "1"
    return any(word in reason for word in _WORDS) and published.folder("index.json") is not None
