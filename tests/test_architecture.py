"""The rules of the house that import-linter can't say (ARCHITECTURE.md)."""

import ast
import importlib
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

import casemate
from casemate import tee

ROOT = Path(__file__).parent.parent
SOURCE = Path(casemate.__file__).parent
MODULES = sorted(path for path in SOURCE.rglob("*.py") if "migrations" not in path.parts)
TEES = sorted(path.name for path in (SOURCE / "tee").iterdir() if (path / "__init__.py").exists())
TRADES = ("tee", "policy", "ledger", "release", "image", "volume", "identity", "boot", "schema", "crypto", "wire")
CLOSURE = Path(__file__).parent / "guest-closure.txt"

# Where a TEE may be named outside its folder, and why. Naming is not branching: no entry makes a comparison allowed.
NAMED = {
    "tee/__init__.py": "the register",
    "policy/references/uvm.py": "a format that speaks of one TEE alone",
    "policy/references/corim_profiles.py": "profiles that speak of one TEE alone",
    "schema/endorsements.py": "the default of an anchor: it vouches for a bare TPM alone",
    "broker/rvps.py": "a type of messages about reference values has the name of one",
    "broker/settings.py": "evidence without hardware is refused unless the operator says otherwise",
    "cli/run.py": "the default platform of a development machine",
    "cli/guest.py": "the default platform of a development machine",
    "host/launch.py": "the default platform, and the folder of prepared TPMs",
    "host/workloads.py": "a folder",
    "host/guestimage/builder.py": "the registers that are recorded per firmware build",
}
# Names of devices outside `collect`, and why.
DEVICES = {
    "tee/tsm.py": "the wall on which the collects of several TEEs stand; nothing else uses it",
    "tee/__init__.py": "signs, looked for and never opened: without one its room is not imported",
}
# Files that are programs, not modules.
PROGRAMS = {"testing/probe.py"}
# Who may import a TEE's room without asking the register, and why.
NEIGHBOURS = {
    "host/pool.py": "prepares software TPMs",
    "host/platform_ca.py": "certifies software TPMs",
}


def name(path):
    return path.relative_to(SOURCE).as_posix()


def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def outside_tees():
    return [p for p in MODULES if not name(p).startswith(("testing/", *(f"tee/{t}/" for t in TEES)))]


def literals(node):
    return {n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)}


def test_no_code_outside_its_folder_branches_on_a_tees_name():
    found = []
    for path in outside_tees():
        for node in ast.walk(tree(path)):
            deciding = isinstance(node, ast.Compare | ast.MatchValue)
            if deciding and literals(node) & set(TEES):
                found.append(f"{name(path)}:{node.lineno}")
    assert not found


def test_a_tee_is_named_only_where_it_must_be():
    found = {name(p) for p in outside_tees() if literals(tree(p)) & set(TEES)}
    assert found <= set(NAMED)


def test_a_tees_room_is_imported_through_the_register():
    found = set()
    for path in outside_tees():
        for node in ast.walk(tree(path)):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if any(m.startswith(tuple(f"casemate.tee.{t}" for t in tee.ROOMS)) for m in modules):
                found.add(name(path))
    assert found <= set(NEIGHBOURS)


def test_claims_are_made_only_by_a_rooms_verify():
    makers = set()
    for path in MODULES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "Claims":
                makers.add(name(path))
    assert makers
    assert all(maker.startswith("tee/") and maker.endswith("/verify.py") for maker in makers)


def test_only_collect_names_a_device():
    found = []
    for path in MODULES:
        here = name(path)
        if (
            here.startswith(tuple(f"{trade}/" for trade in TRADES))
            and not here.endswith("/collect.py")
            and here not in DEVICES
        ):
            module = tree(path)
            documented = (ast.Module, ast.FunctionDef, ast.ClassDef)
            docs = {ast.get_docstring(n, clean=False) for n in ast.walk(module) if isinstance(n, documented)}
            names = {"/dev", "/proc", "/sys"}  # bare names are what manifests may not cover
            found += [
                f"{here}: {t}" for t in literals(module) - docs - names if t.startswith(("/dev/", "/sys/", "/proc/"))
            ]
    assert not found


def test_the_guest_carries_what_is_pinned_and_nothing_else():
    """A new line here is more code inside every guest: look at it, then write the list anew.

    CASEMATE_PIN=1 makes this test write the list.
    """
    import grimp

    graph = grimp.build_graph("casemate")
    found = sorted(
        {*graph.find_upstream_modules("casemate.guest", as_package=True), *graph.find_descendants("casemate.guest")}
    )
    if os.environ.get("CASEMATE_PIN"):
        CLOSURE.write_text("".join(f"{module}\n" for module in found))
    assert found == CLOSURE.read_text().split()


def test_every_room_keeps_the_contract():
    from casemate.tee.room import Room

    verbs = [verb for verb in vars(Room) if not verb.startswith("_")]
    for wire_name in tee.ROOMS:
        room = tee.room(wire_name)
        for verb in verbs:
            wanted = list(inspect.signature(getattr(Room, verb)).parameters)[1:]
            offered = inspect.signature(getattr(room, verb)).parameters.values()
            needed = [p.name for p in offered if p.default is p.empty]
            assert needed == wanted, f"{wire_name}.{verb}"


@pytest.mark.parametrize("path", [p for p in MODULES if name(p) not in PROGRAMS], ids=name)
def test_public_names_exist(path):
    module = importlib.import_module(
        ".".join(("casemate", *Path(name(path)).with_suffix("").parts)).removesuffix(".__init__")
    )
    assert module.__doc__
    for public in getattr(module, "__all__", ()):
        assert hasattr(module, public)


def test_files_are_named_after_what_they_hold():
    vague = {"utils", "util", "helpers", "common", "manager", "misc", "core", "base"}
    assert not [name(p) for p in MODULES if p.stem in vague]


def test_nothing_is_read_from_the_environment_at_import():
    found = []
    for path in MODULES:
        for node in tree(path).body:
            if isinstance(node, ast.Assign | ast.AnnAssign | ast.Expr) and "os.environ" in ast.unparse(node):
                found.append(f"{name(path)}:{node.lineno}")
    assert not found


def test_the_library_imports_without_what_the_guest_lacks():
    """The guest's Debian has cryptography, msgspec and rfc8785 only."""
    missing = ["click", "yaml", "rich", "joserfc", "starlette", "uvicorn", "sqlalchemy", "alembic"]
    modules = [m for m in CLOSURE.read_text().split() if m != "casemate"]
    code = f"import sys\nfor m in {missing!r}: sys.modules[m] = None\nfor m in {modules!r}: __import__(m)\n"
    subprocess.run([sys.executable, "-c", code], check=True)
