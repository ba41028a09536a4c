"""The page on evidence in files: its shell and Python blocks are run, in order, in one folder."""

import re
import sys

from tests.docs import shell

PAGE = shell.ROOT / "docs/how-to/verify-evidence.md"
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_the_page_runs_as_it_stands(tmp_path):
    blocks = BLOCK.findall(PAGE.read_text())
    assert {language for language, _ in blocks} == {"sh", "python"}
    shown = ""
    for language, text in blocks:
        program = {} if language == "sh" else {"program": (sys.executable, "-c")}
        shown += shell.good(shell.run(text, tmp_path, **program))
    for part in ("ACCEPTED", '"freshness": "checked"', "REFUSED", "✗ snp.policy.debug"):
        assert part in shown
