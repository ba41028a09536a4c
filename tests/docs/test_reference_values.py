"""The page on reference values: its commands and its program run as they stand."""

import os
import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "reference-values.md"
BLOCK = re.compile(r"^```(sh|python)([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_the_page_runs_as_it_stands(tmp_path):
    blocks = [(kind, text) for kind, rest, text in BLOCK.findall(PAGE.read_text()) if rest.strip() != "skip"]
    script = "".join(text for kind, text in blocks if kind == "sh")
    (tmp_path / "page.py").write_text("".join(text for kind, text in blocks if kind == "python"))
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def run(*command):
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    done = run("bash", "-euo", "pipefail", "-c", script)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("BELIEVED") == 2
    assert "reference.scope.tenant" in done.stdout
    done = run(sys.executable, "page.py")
    assert done.returncode == 0, done.stderr
    assert "['reference.scope.tenant']" in done.stdout
