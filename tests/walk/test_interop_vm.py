"""An image that skopeo encrypted through our key provider and that cosign signed runs in an attested VM."""

import json
import os
import subprocess
import sys

import pytest
from examples.demo import steps
from examples.demo.story import casemate

from casemate.drivers import tools

pytestmark = [pytest.mark.vm, pytest.mark.tools, pytest.mark.timeout(600)]


def by_others(stage):
    """Encrypt with skopeo and sign with cosign; the image's reference. cosign's key becomes the manifest's signer."""
    work = stage.work
    starter = work / "provider"
    starter.write_text(f'#!/bin/sh\nexec {sys.executable} -m casemate keyprovider "$@"\n')
    starter.chmod(0o755)
    provider = {"key-providers": {"attestation-agent": {"cmd": {"path": str(starter)}}}}
    (work / "provider.json").write_text(json.dumps(provider))
    (work / "any.json").write_text('{"default":[{"type":"insecureAcceptAnything"}]}')
    environment = {
        **os.environ,
        "HOME": str(work),
        "OCICRYPT_KEYPROVIDER_CONFIG": str(work / "provider.json"),
        "COSIGN_PASSWORD": "p",
    }

    def tool(name, *words):
        done = subprocess.run(
            tools.argv(name, *map(str, words)), cwd=work, env=environment, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr.decode()

    repository = f"{stage.context['registry']['host']}/demo/others"
    key = f"provider:attestation-agent:keyid={stage.resource('image-key/1')}::keypath={stage.image_key_file()}"
    tool("skopeo", "--policy", "any.json", "copy", "-q", "--dest-tls-verify=false", "--encryption-key", key,
         "oci:plain:latest", f"docker://{repository}:1")  # fmt: skip
    shown = casemate("image", "inspect", f"{repository}:1", "--plain-http").document
    reference = f"{repository}@{shown['digest']}"
    tool("cosign", "generate-key-pair")
    tool("cosign", "sign", "--key", "cosign.key", "--tlog-upload=false", "--allow-http-registry", "-y", reference)
    stage.signer = (b"", (work / "cosign.pub").read_text())
    return reference


def test_skopeos_and_cosigns_image_runs(stage):
    steps.guest_image(stage)
    steps.trust_domain(stage)
    steps.image(stage)
    ours, stage.image = stage.image, by_others(stage)
    assert stage.image != ours
    steps.found_and_release(stage)
    steps.start(stage)
    assert b"the first secret" in steps.wait_for(lambda: steps.get(stage, "/"), "the page")
