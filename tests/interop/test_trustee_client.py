"""Trustee's own `kbs-client`, unchanged, against this broker: CASEMATE_KBS_CLIENT names the program, else all skips.

It was built from trustee 78962cd4 (August 2026) with guest-components 8246e5e0, whose attester falls back to `sample`.
CASEMATE_TRUSTEE may name Trustee's source tree: then its default attestation policy is set too.
"""

import base64
import os
import subprocess
from pathlib import Path

import pytest
from tests.interop.conftest import start

from casemate.boot import initdata

PROGRAM = os.environ.get("CASEMATE_KBS_CLIENT", "")
SOURCE = os.environ.get("CASEMATE_TRUSTEE", "")
PATH = "default/key/1"
pytestmark = pytest.mark.skipif(not PROGRAM, reason="CASEMATE_KBS_CLIENT names no kbs-client")


class Tool:
    """The client on one broker."""

    def __init__(self, service, folder):
        self.service, self.folder = service, folder

    def run(self, *arguments):
        settings = self.service.broker.settings
        base = [PROGRAM, "--url", self.service.url, "--cert-file", str(settings.folder / "tls.crt")]
        return subprocess.run([*base, *arguments], capture_output=True, text=True, timeout=120, check=False)

    def admin(self, *arguments):
        token = self.folder / "admin.token"
        token.write_text(self.service.admin.token())
        return self.run("config", "--admin-token-file", str(token), *arguments)

    def get(self, path, *arguments):
        """(code, value or error)."""
        done = self.run("get-resource", "--path", path, *arguments)
        return done.returncode, base64.b64decode(done.stdout) if done.returncode == 0 else done.stderr


@pytest.fixture(scope="module", params=[False, True], ids=["by-meaning", "strict-trustee"])
def service(request, tmp_path_factory):
    made = start(tmp_path_factory.mktemp("trustee"), repos={"default": "lab"}, strict_trustee=request.param)
    yield made
    made.stop()


@pytest.fixture
def tool(service, tmp_path):
    return Tool(service, tmp_path)


def test_attest(tool):
    done = tool.run("attest")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(".") == 2


def test_reference_values(tool):
    for arguments in (["launch_digest", "abcde"], ["snp_bootloader", "10", "--as-integer"]):
        done = tool.admin("set-sample-reference-value", *arguments)
        assert done.returncode == 0, done.stderr
    assert "[10]" in tool.admin("get-reference-value", "--id", "snp_bootloader").stdout
    assert "RvpsError" in tool.admin("get-reference-value", "--id", "nothing").stderr


def test_a_resource_under_each_of_its_policies(tool):
    value = tool.folder / "value"
    value.write_bytes(b"hello")
    assert tool.admin("set-resource", "--path", PATH, "--resource-file", str(value)).returncode == 0
    for policy, opens in (("--deny-all", False), ("--allow-all", True), ("--default", False)):
        assert tool.admin("set-resource-policy", policy).returncode == 0
        code, found = tool.get(PATH)
        assert (code, found) == (0, b"hello") if opens else (code == 1 and "PolicyDeny" in found), policy
    assert tool.admin("set-resource-policy", "--allow-all").returncode == 0
    assert tool.admin("delete-resource", "--path", PATH).returncode == 0
    assert tool.get(PATH)[0] == 1


@pytest.mark.skipif(not SOURCE, reason="CASEMATE_TRUSTEE names no source tree")
def test_its_default_attestation_policy_affirms_what_its_reference_values_say(tool):
    (text,) = Path(SOURCE).glob("attestation-service/src/**/ear_default_policy_cpu.rego")
    assert tool.admin("set-attestation-policy", "--policy-file", str(text), "--id", "default_cpu").returncode == 0
    value = tool.folder / "value"
    value.write_bytes(b"hello")
    tool.admin("set-resource", "--path", "default/key/2", "--resource-file", str(value))
    assert tool.admin("set-resource-policy", "--affirming").returncode == 0
    assert "PolicyDeny" in tool.get("default/key/2")[1]
    for name, wanted in (("launch_digest", "abcde"), ("svn", "1")):
        tool.admin("set-sample-reference-value", name, wanted)
    for name, wanted in (("major_version", "1"), ("minimum_minor_version", "4")):
        tool.admin("set-sample-reference-value", name, wanted, "--as-integer", "--as-single-value")
    assert tool.get("default/key/2") == (0, b"hello")


def test_a_guest_with_a_manifest(tool):
    app = tool.service.found()
    tool.service.admin.put_resource(app.app_id, f"kbs:///{app.path}", b"by manifest")
    assert tool.get(app.path, initdata.document(app.manifest).decode()) == (0, b"by manifest")


def test_an_rsa_key_and_a_token_that_was_kept(tool):
    value = tool.folder / "value"
    value.write_bytes(b"hello")
    tool.admin("set-resource", "--path", "default/key/3", "--resource-file", str(value))
    tool.admin("set-resource-policy", "--allow-all")
    key, token = tool.folder / "rsa.pem", tool.folder / "token"
    subprocess.run(["openssl", "genrsa", "-traditional", "-out", str(key), "2048"], check=True, capture_output=True)
    token.write_text(tool.run("attest", "--tee-key-file", str(key)).stdout.strip())
    code, found = tool.get("default/key/3", "--tee-key-file", str(key), "--attestation-token", str(token))
    assert (code, found) == (0, b"hello")
