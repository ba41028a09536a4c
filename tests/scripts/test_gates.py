"""The gates find what they are for: a gate that cannot fail is none."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def load(name):
    spec = importlib.util.spec_from_file_location(f"gate_{name}", ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def project(tmp_path):
    """A small project with the folders that the gates look at."""
    for folder in ("src/casemate/cli", "tests", "scripts", "docs"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "scripts" / "exemptions.toml").write_text("[sizes]\n")
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    return tmp_path


def gate(name, project, monkeypatch, capsys):
    """(exit code, what the gate printed) over the project."""
    module = load(name)
    monkeypatch.setattr(module, "ROOT", project)
    return module.main(), capsys.readouterr().out


def long_function(lines, head="def f():"):
    return f"{head}\n" + "    x = 1\n" * (lines - 1)


def test_sizes(project, monkeypatch, capsys):
    source = project / "src" / "casemate"
    (source / "good.py").write_text(long_function(60))
    assert gate("sizes", project, monkeypatch, capsys) == (0, "")
    (source / "long.py").write_text("x = 1\n" * 401)
    (source / "function.py").write_text(long_function(61))
    (source / "cli" / "door.py").write_text(long_function(41, "@click.command()\ndef f():"))
    code, out = gate("sizes", project, monkeypatch, capsys)
    assert code == 1
    assert [line.split(":")[0] for line in out.splitlines()] == [
        "src/casemate/cli/door.py",
        "src/casemate/function.py",
        "src/casemate/long.py",
    ]


def test_sizes_exemptions_are_used_or_gone(project, monkeypatch, capsys):
    (project / "src/casemate/function.py").write_text(long_function(61))
    exemptions = project / "scripts" / "exemptions.toml"
    exemptions.write_text('[sizes]\n"src/casemate/function.py:f" = "a table"\n')
    assert gate("sizes", project, monkeypatch, capsys)[0] == 0
    (project / "src/casemate/function.py").write_text(long_function(10))
    code, out = gate("sizes", project, monkeypatch, capsys)
    assert code == 1
    assert "needs no exemption" in out


HOSTS = [
    "deb.debi" + "an.org",
    "pypi" + ".org",
    "files.pythonho" + "sted.org",
    "ghcr" + ".io/x",
    "registry.np" + "mjs.org",
]


@pytest.mark.parametrize("text", [*HOSTS, "cd /wo" + "rk/main", "see /ro" + "ot/x", "/tm" + "p/casemate/x"])
def test_names(project, monkeypatch, capsys, text):
    (project / "docs" / "page.md").write_text(f"a line\nand {text}\n")
    code, out = gate("names", project, monkeypatch, capsys)
    assert code == 1
    assert out.startswith("docs/page.md:2: ")


def test_names_lets_others_be(project, monkeypatch, capsys):
    (project / "docs" / "page.md").write_text(
        "registry.example https://broker.example src/wor" + "k/ network/root a Debian mirror\n"
    )
    assert gate("names", project, monkeypatch, capsys) == (0, "")
    (project / "requirements").mkdir()
    (project / "requirements" / "run.txt").write_text("x==1 --hash=sha256:0\n# from https" + "://somewhere.example\n")
    assert gate("names", project, monkeypatch, capsys)[0] == 1


def test_links(project, monkeypatch, capsys):
    (project / "README.md").write_text("[a](docs/page.md#a-heading) [b](https://x.example)\n```\n[no](nowhere)\n```\n")
    (project / "docs" / "page.md").write_text("# A heading\n")
    assert gate("links", project, monkeypatch, capsys)[0] == 0
    (project / "README.md").write_text("[a](docs/page.md#other)\n[b](docs/none.md)\n")
    code, out = gate("links", project, monkeypatch, capsys)
    assert (code, len(out.splitlines())) == (1, 2)


def test_locks_find_what_is_not_locked(monkeypatch, tmp_path):
    module = load("lock")
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "run.txt").write_text("click==8.2 \\\n    --hash=sha256:0\n")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    assert module.unmet(["click>=8,<9"], "run.txt") == []
    assert module.unmet(["click>=9", "Rich"], "run.txt") == ["click>=9", "Rich"]


def test_check_runs_every_gate_and_fails_with_one(monkeypatch, capsys):
    module = load("check")
    monkeypatch.setattr(
        module, "GATES", (("good", ["true"]), ("bad", ["sh", "-c", "echo why; exit 1"]), ("last", ["true"]))
    )
    monkeypatch.setattr(sys, "argv", ["check"])
    assert module.main() == 1
    out = capsys.readouterr().out
    assert [line[0] for line in out.splitlines()] == ["✓", "✗", "w", "✓", "c"]


def test_the_lock_files_name_no_host():
    for lock in (ROOT / "requirements").glob("*.txt"):
        assert "//" not in lock.read_text()
        assert "--hash=sha256:" in lock.read_text()
