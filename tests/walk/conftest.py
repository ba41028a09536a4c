"""A trust domain of its own for the tests that walk the whole path in a VM."""

import pytest
from examples.demo import steps
from examples.demo.story import Story, casemate


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """A trust domain of its own, taken down at the end."""
    home = tmp_path / "home"
    monkeypatch.setenv("CASEMATE_HOME", str(home))
    work = tmp_path / "work"
    work.mkdir()
    made = steps.Stage(Story(home), work)
    yield made
    for name in made.workloads:
        casemate("rm", name, "--force", "--volumes", may_fail=True)
    casemate("down", may_fail=True)
