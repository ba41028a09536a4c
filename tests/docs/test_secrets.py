"""The how-to on secrets: its commands run as they stand."""

import re

import pytest
from tests.docs import shell

PAGE = shell.ROOT / "docs/how-to/secrets.md"


@pytest.mark.timeout(180)
def test_the_page_runs_as_it_stands(tmp_path):
    said = shell.good(shell.run(shell.script(PAGE), tmp_path))
    assert re.search(r"^2 +newest ", said, re.MULTILINE)
    assert re.search(r"^1 +opens ", said, re.MULTILINE)
    masters = re.findall(r"^([0-9a-f]{16}) +file +(\d+)$", said, re.MULTILINE)
    assert int(masters[-2][1]) > 5
    assert int(masters[-1][1]) == 0
