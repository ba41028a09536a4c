"""A new admin's first hour: the page runs as it stands, in fewer than ten commands of the admin's."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from casemate.drivers import daemons

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/how-to/first-admin.md").read_text()
BLOCK = re.compile(r"^```sh([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_the_admin_needs_fewer_than_ten_commands():
    own = "".join(text for rest, text in BLOCK.findall(PAGE) if rest.strip() != "developer")
    assert len(re.findall(r"\bcasemate [a-z]", own)) < 10
    assert "casemate init" in own
    assert "casemate policy set" in own


@pytest.mark.vm
@pytest.mark.tools
@pytest.mark.timeout(900)
def test_the_page_runs_as_it_stands(tmp_path):
    script = "".join(text for _, text in BLOCK.findall(PAGE))
    script = script.replace("--port 8443", f"--port {daemons.free_port()}")
    script = script.replace("9443:8443", f"{daemons.free_port()}:8443")
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "CASEMATE_HOME": str(tmp_path / ".casemate"),
    }

    def shell(text):
        command = ["bash", "-euo", "pipefail", "-c", text]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    try:
        done = shell(script)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        told = [line.split() for line in done.stdout.splitlines() if "allowed" in line]
        assert {line[3] for line in told if line[2] == "release"} >= {"web/tls/server", "web/page/line"}
        refusing = "package policy\nimport rego.v1\ndefault allow := false\n"
        (tmp_path / "none.rego").write_text(refusing)
        assert shell("casemate policy set none.rego --kind resource --tenant me").returncode == 0
        again = shell("casemate rm --force web; casemate run work/web.yaml")
        assert again.returncode != 0  # the policy is what opened the secrets
        assert "policy.resource" in again.stderr + again.stdout + shell("casemate decisions").stdout
    finally:
        shell("casemate rm --force web || true; casemate down")
