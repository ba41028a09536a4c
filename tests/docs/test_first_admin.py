"""A new admin's first hour: the page runs as it stands, in fewer than ten commands of the admin's."""

import re

import pytest
from tests.docs import shell

from casemate.drivers import daemons

BLOCKS = shell.blocks(shell.ROOT / "docs/how-to/first-admin.md", "sh")


def test_the_admin_needs_fewer_than_ten_commands():
    own = "".join(text for rest, text in BLOCKS if rest != "developer")
    assert len(re.findall(r"\bcasemate [a-z]", own)) < 10
    assert "casemate init" in own
    assert "casemate policy set" in own


@pytest.mark.vm
@pytest.mark.tools
@pytest.mark.timeout(900)
def test_the_page_runs_as_it_stands(tmp_path):
    script = "".join(text for _, text in BLOCKS)
    script = script.replace("--port 8443", f"--port {daemons.free_port()}")
    script = script.replace("9443:8443", f"{daemons.free_port()}:8443")

    def run(text):
        return shell.run(text, tmp_path, PYTHONPATH=str(shell.ROOT))

    try:
        told = [line.split() for line in shell.good(run(script)).splitlines() if "allowed" in line]
        assert {line[3] for line in told if line[2] == "release"} >= {"web/tls/server", "web/page/line"}
        refusing = "package policy\nimport rego.v1\ndefault allow := false\n"
        (tmp_path / "none.rego").write_text(refusing)
        assert run("casemate policy set none.rego --kind resource --tenant me").returncode == 0
        again = run("casemate rm --force web; casemate run work/web.yaml")
        assert again.returncode != 0  # the policy is what opened the secrets
        assert "policy.resource" in again.stderr + again.stdout + run("casemate decisions").stdout
    finally:
        run("casemate rm --force web || true; casemate down")
