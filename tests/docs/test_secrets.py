"""The how-to on secrets: its commands run as they stand."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "secrets.md"


@pytest.mark.timeout(180)
def test_the_page_runs_as_it_stands(tmp_path):
    script = "".join(re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL))
    script = 'trap "kill \\$(jobs -p) 2>/dev/null || true" EXIT\n' + script  # whatever fails, nobody stays behind
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "CASEMATE_HOME": str(tmp_path / ".casemate"),
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    said = done.stdout
    assert re.search(r"^2 +newest ", said, re.MULTILINE)
    assert re.search(r"^1 +opens ", said, re.MULTILINE)
    masters = re.findall(r"^([0-9a-f]{16}) +file +(\d+)$", said, re.MULTILINE)
    assert int(masters[-2][1]) > 5
    assert int(masters[-1][1]) == 0
