"""A test of published evidence that is skipped although the evidence lies here is a failure: nothing passes unseen."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from casemate.testing import published

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
        report.longrepr = f"the published evidence is here, and yet: {report.longrepr[2]}"


def _unseen(reason: str) -> bool:
    return any(word in reason for word in _WORDS) and published.folder("index.json") is not None
