"""A page's blocks and how they are run: by bash as a reader's shell would, but stopping at the first failure."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_ENDED = 'trap "kill \\$(jobs -p) 2>/dev/null || true" EXIT\n'  # whatever fails, nobody stays behind


def blocks(page, language):
    """(rest of the fence line, text) of each block in a language."""
    found = _BLOCK.findall(page.read_text())
    return [(rest.strip(), text) for kind, rest, text in found if kind == language]


def script(page, language="sh"):
    """The blocks of a page, one behind another, without those that are marked `skip`."""
    return "".join(text for rest, text in blocks(page, language) if rest != "skip")


def run(text, folder, *, program=("bash", "-euo", "pipefail", "-c"), timeout=None, **environment):
    """Run a script in `folder`, with this `casemate` first; its home is there too unless it is named."""
    more = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(
        [*program, _ENDED + text if program[0] == "bash" else text],
        cwd=folder,
        env={**os.environ, **more, "CASEMATE_HOME": str(folder / ".casemate"), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )


def good(done):
    """What a script that must have ended well printed."""
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout
