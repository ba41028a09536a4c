"""The accelerator's probe: what it decides, that it ends, and that the verdict is kept for this boot only."""

import json
import os
import time

import pytest

from casemate.drivers import accelerator
from casemate.errors import Unusable


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    monkeypatch.delenv(accelerator.ENVIRONMENT, raising=False)


def test_the_user_decides(monkeypatch, tmp_path):
    monkeypatch.setattr(accelerator, "works", lambda: pytest.fail("must not probe"))
    monkeypatch.setenv(accelerator.ENVIRONMENT, "tcg")
    assert accelerator.choose(tmp_path / "cache") == "tcg"
    monkeypatch.setenv(accelerator.ENVIRONMENT, "hvf")
    with pytest.raises(Unusable, match="hvf"):
        accelerator.choose()


def test_the_verdict_is_kept_for_this_boot(monkeypatch, tmp_path):
    cache = tmp_path / "accelerator.json"
    monkeypatch.setattr(accelerator, "works", lambda: True)
    assert accelerator.choose(cache) == "kvm"
    monkeypatch.setattr(accelerator, "works", lambda: False)
    assert accelerator.choose(cache) == "kvm"
    kept = json.loads(cache.read_text())
    cache.write_text(json.dumps({**kept, "boot": "another"}))
    assert accelerator.choose(cache) == "tcg"


@pytest.mark.parametrize("text", ["", "[]", "{", '{"boot": 1}', '{"accelerator": "kvm"}'])
def test_a_broken_verdict_is_no_verdict(monkeypatch, tmp_path, text):
    (tmp_path / "c").write_text(text)
    monkeypatch.setattr(accelerator, "works", lambda: False)
    assert accelerator.choose(tmp_path / "c") == "tcg"


def test_no_node(monkeypatch, tmp_path):
    monkeypatch.setattr(accelerator, "NODE", tmp_path / "kvm")
    assert not accelerator.works()


def test_a_node_that_is_no_kvm(monkeypatch, tmp_path):
    (tmp_path / "kvm").write_bytes(b"")
    monkeypatch.setattr(accelerator, "NODE", tmp_path / "kvm")
    with pytest.raises(OSError, match="ioctl"):
        accelerator.probe()


def test_the_probe_ends_whatever_kvm_does():
    begun = time.monotonic()
    assert accelerator.works(0.3) in {True, False}
    assert time.monotonic() - begun < 30


def test_a_short_program_runs_where_kvm_exists(monkeypatch):
    if not os.access(accelerator.NODE, os.R_OK | os.W_OK):
        pytest.skip("/dev/kvm is not there")
    monkeypatch.setattr(accelerator, "_CODE", bytes.fromhex("b900000100 ffc9 75fc f4"))
    try:
        accelerator.probe()
    except OSError as error:
        pytest.skip(f"KVM makes no VM here: {error}")
