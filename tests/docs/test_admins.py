"""The how-to on admins and tenants runs as it stands."""

import os
import subprocess
import sys
from pathlib import Path

from casemate.drivers import daemons

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/how-to/admins-and-tenants.md"
PORT = "18443"


def script():
    lines, shell = [], False
    for line in PAGE.read_text().splitlines():
        if line.startswith("```"):
            shell = line == "```sh"
        elif shell:
            lines.append(line)
    return "\n".join(lines).replace(PORT, str(daemons.free_port()))


def test_the_page_runs_as_it_stands(tmp_path):
    ended = 'trap "kill \\$(jobs -p) 2>/dev/null || true" EXIT\n'
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", ended + script()],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for told in ("key#acme/ann", "key#acme/bea", "approved and carried out", "https://vault.example", "next"):
        assert told in done.stdout, told
    assert "waits for a second owner" in done.stderr
    assert "another owner than who asked" in done.stderr
