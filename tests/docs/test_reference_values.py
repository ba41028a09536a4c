"""The page on reference values: its commands and its program run as they stand."""

import sys

from tests.docs import shell

PAGE = shell.ROOT / "docs/how-to/reference-values.md"


def test_the_page_runs_as_it_stands(tmp_path):
    told = shell.good(shell.run(shell.script(PAGE), tmp_path))
    assert told.count("BELIEVED") == 2
    assert "reference.scope.tenant" in told
    told = shell.good(shell.run(shell.script(PAGE, "python"), tmp_path, program=(sys.executable, "-c")))
    assert "['reference.scope.tenant']" in told
