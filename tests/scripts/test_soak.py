"""What the soak remembers counts for the tree that it saw, and for no other."""

import importlib.util
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "soak.py"


@pytest.fixture
def soak(tmp_path, monkeypatch):
    """The script as a module, on a small repository with one commit."""
    spec = importlib.util.spec_from_file_location("soak_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "MEMORY", tmp_path / "build" / "soak.json")
    (tmp_path / "code.py").write_text("x = 1")
    (tmp_path / ".gitignore").write_text("build/")
    author = ("-c", "user.name=t", "-c", "user.email=t@registry.example")
    for words in (("init", "-q"), ("add", "."), (*author, "commit", "-q", "-m", "one")):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    return module


def test_a_changed_tree_is_another_state(soak, tmp_path):
    states = [soak.state()]
    for name, text in (("code.py", "x = 2"), ("code.py", "x = 3"), ("new.py", ""), ("new.py", "y"), ("newer.py", "y")):
        (tmp_path / name).write_text(text)
        states.append(soak.state())
    assert len(set(states)) == len(states)
    soak.remember(states[-1], {"a", "b"})
    assert soak.state() == states[-1]  # its own memory is no change
    assert soak.remembered(states[-1]) == {"a", "b"}
    assert soak.remembered(states[0]) == set()


def test_back_to_the_commit_is_back_to_its_state(soak, tmp_path):
    before = soak.state()
    (tmp_path / "code.py").write_text("x = 2")
    (tmp_path / "code.py").write_text("x = 1")
    assert soak.state() == before


@pytest.mark.parametrize("changes", [False, True])
def test_a_pass_is_remembered_if_the_tree_stood_still(soak, tmp_path, monkeypatch, changes):
    monkeypatch.setattr(soak, "collected", lambda: ["one"])
    monkeypatch.setattr(soak, "PYTEST", ["sh", "-c", "echo x >> code.py" if changes else "true"])
    monkeypatch.setattr("sys.argv", ["soak.py"])
    before = soak.state()
    assert soak.main() == 0
    assert soak.remembered(before) == (set() if changes else {"one"})
    assert soak.remembered(soak.state()) == (set() if changes else {"one"})


def test_without_git_there_is_no_state(soak, tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(SystemExit, match="no state"):
        soak.state()
