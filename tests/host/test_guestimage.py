"""Building the guest image: the same bytes everywhere, and what happens when a locked version is gone."""

from __future__ import annotations

import ast
import os
import queue
import shutil
import stat
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from casemate.drivers import debs, tools
from casemate.errors import Malformed, Unusable
from casemate.host import guestimage
from casemate.host.guestimage import builder, image, initrd, lock, modules, recipe


def test_the_committed_recipe_and_locks_are_well_formed() -> None:
    parts = recipe.load_recipe()
    folder = tools.recipe_folder()
    found = lock.load(folder / "packages.lock", parts, committed=True)
    assert not {p.name for p in found.packages} & set(parts.packages.drop)
    assert found.kernel.endswith("-cloud-amd64")
    locked = {p.name for p in debs.parse_lock((folder / "tools.lock").read_text())}
    assert set(parts.tools.root) <= locked
    for file in folder.rglob("*"):
        assert not file.is_file() or b"://" not in file.read_bytes(), f"{file} names a host"


def test_an_unknown_key_in_a_recipe_is_malformed(tmp_path: Path) -> None:
    text = (tools.recipe_folder() / "recipe.toml").read_text()
    (tmp_path / "recipe.toml").write_text(text.replace("epoch =", "epok ="))
    with pytest.raises(Malformed, match=r"recipe\.toml"):
        recipe.load_recipe(tmp_path)
    (tmp_path / "recipe.toml").write_text("= nothing")
    with pytest.raises(Malformed, match=r"recipe\.toml"):
        recipe.load_recipe(tmp_path)


@pytest.mark.parametrize(
    "name", ["recipe.toml", "initrd/init", "root/init", "root/init.py", "firmware.toml", "tools.lock"]
)
def test_the_input_digest_covers_every_part(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "guest-image"
    shutil.copytree(tools.recipe_folder(), folder)
    parts = recipe.load_recipe()
    before = recipe.input_digest(parts, b"lock", folder)
    assert recipe.input_digest(parts, b"another", folder) != before
    with (folder / name).open("a") as stream:
        stream.write("# \n")
    assert recipe.input_digest(parts, b"lock", folder) != before


def test_an_archive_is_newc_with_fixed_owner_and_time(tmp_path: Path) -> None:
    content = [
        initrd.Entry("dev", stat.S_IFDIR | 0o755),
        initrd.Entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)),
        initrd.Entry("init", stat.S_IFREG | 0o755, b"#!/bin/sh\n"),
        initrd.Entry("sh", stat.S_IFLNK | 0o777, b"busybox"),
    ]
    made = initrd.archive(content, 1767225600)
    assert made == initrd.archive(content, 1767225600)
    assert len(made) % 512 == 0
    if shutil.which("cpio"):
        said = subprocess.run(["cpio", "-itvn"], input=made, capture_output=True, check=True, env={"TZ": "UTC"})
        lines = said.stdout.decode().splitlines()
        assert len(lines) == 4
        assert all(line.split()[2:4] == ["0", "0"] for line in lines)
    assert made[:6] == b"070701"
    assert made.count(b"070701") == 5


def _module(folder: Path, name: str, *tags: str) -> None:
    import lzma

    file = folder / "kernel" / f"{name}.ko.xz"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(lzma.compress(b"\x7fELF\0" + b"".join(tag.encode() + b"\0" for tag in tags)))


def test_modules_come_after_what_they_need(tmp_path: Path) -> None:
    folder = tmp_path / "usr/lib/modules/6.12-test"
    _module(folder, "dm-mod", "depends=")
    _module(folder, "dm-bufio", "depends=dm-mod")
    _module(folder, "dm-verity", "depends=dm-bufio,dm-mod,builtin-one", "softdep=pre: sha256-x absent-one")
    _module(folder, "sha256-x", "depends=")
    (folder / "modules.builtin").write_text("kernel/lib/builtin-one.ko\n")
    found = modules.Modules(tmp_path)
    assert found.release == "6.12-test"
    assert found.ordered(["dm-verity"]) == ["dm_mod", "dm_bufio", "sha256_x", "dm_verity"]
    assert found.ordered(["dm-verity"], loaded=["dm_bufio"]) == ["dm_mod", "sha256_x", "dm_verity"]
    assert found.table(["dm_verity"]) == b"dm_verity.ko: sha256_x.ko dm_bufio.ko dm_mod.ko\n"
    with pytest.raises(Unusable, match="no module absent"):
        found.ordered(["absent"])


def test_a_folder_without_an_image_is_unusable(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="no guest image"):
        guestimage.load(tmp_path)
    (tmp_path / "image.json").write_text("{}")
    with pytest.raises(Malformed, match=r"image\.json"):
        guestimage.load(tmp_path)


def test_a_changed_file_is_found(tmp_path: Path) -> None:
    for name in image.FILES:
        (tmp_path / name).write_bytes(name.encode())
    facts = {"recorded": {}, "measurements": {}, "packages": [], "lock_committed": True}
    image.describe(tmp_path, name="n", command_line="c", roothash="r", lock="l", inputs="i", **facts)
    found = guestimage.load(tmp_path)
    found.check()
    (tmp_path / "kernel").write_bytes(b"KERNEL")
    with pytest.raises(Unusable, match="was changed"):
        found.check()
    with pytest.raises(Unusable, match="was changed"):
        guestimage.load(tmp_path)
    (tmp_path / "kernel").unlink()
    with pytest.raises(Unusable, match="missing"):
        guestimage.load(tmp_path)


@contextmanager
def _elsewhere(folder: Path) -> Iterator[None]:
    """Another umask, time zone, language and folder for temporary files."""
    changed = {"TZ": "Pacific/Auckland", "LC_ALL": "C", "TMPDIR": str(folder), "HOME": str(folder)}
    before = {name: os.environ.get(name) for name in changed}
    mask = os.umask(0o077)
    os.environ.update(changed)
    time.tzset()
    try:
        yield
    finally:
        os.umask(mask)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        time.tzset()


@pytest.mark.tools
@pytest.mark.timeout(300)
def test_two_builds_in_different_places_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = recipe.load_recipe()
    found, files = lock.obtain(parts, lambda _: None)
    first = builder.build(parts, found, files, tmp_path / "one")
    monkeypatch.setenv("CASEMATE_CACHE", os.environ.get("CASEMATE_CACHE") or str(tools.root().parents[1]))
    (tmp_path / "another place").mkdir()
    with _elsewhere(tmp_path / "another place"):
        second = builder.build(parts, found, files, tmp_path / "another place/two")
    if first.paper.inputs != second.paper.inputs:
        pytest.skip("the guest's sources were edited while the test ran")
    assert first.paper == second.paper
    second.check()
    assert (tmp_path / "one/image.json").read_bytes() == (tmp_path / "another place/two/image.json").read_bytes()


@pytest.mark.tools
def test_the_disk_is_what_the_command_line_says(tmp_path: Path) -> None:
    made = guestimage.ensure()
    words = dict(w.split("=", 1) for w in made.command_line.split() if w.startswith("casemate."))
    blocks, salt, root = words["casemate.root"].split(":")
    assert root == made.paper.roothash
    data = made.disk.read_bytes()
    assert struct.unpack_from("<I", data, 1024)[0] == 0xE0F5E1E2  # erofs
    offset = int(blocks) * 4096
    (tmp_path / "data").write_bytes(data[:offset])
    (tmp_path / "tree").write_bytes(data[offset:])
    assert f"{salt}" == data[offset + 88 : offset + 120].hex()
    subprocess.run(
        tools.argv("veritysetup", "verify", str(tmp_path / "data"), str(tmp_path / "tree"), root), check=True
    )
    listing = subprocess.run(
        tools.argv("dump.erofs", "--ls", "--path=/usr/lib/casemate", str(made.disk)),
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "init.py" in listing


@pytest.mark.tools
def test_tools_run_with_their_own_libraries() -> None:
    folder = tools.root()
    for name, program in tools.PROGRAMS.items():
        with (folder / program).open("rb") as stream:
            assert stream.read(4) == b"\x7fELF", name
        tools.libraries(folder, folder / program)
    said = subprocess.run(tools.argv("mkfs.erofs", "--version"), capture_output=True, text=True, check=True)
    locked = debs.parse_lock((tools.recipe_folder() / "tools.lock").read_text())
    assert next(p.version for p in locked if p.name == "erofs-utils").partition("-")[0] in said.stdout
    with pytest.raises(Unusable, match="no tool"):
        tools.path("rm")


@pytest.mark.tools
@pytest.mark.timeout(300)
def test_a_version_that_is_gone_is_named_and_locked_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CASEMATE_HOME", str(tmp_path / "home"))
    folder = tmp_path / "guest-image"
    shutil.copytree(tools.recipe_folder(), folder)
    text = (folder / "packages.lock").read_text()
    line = next(x for x in text.splitlines() if x.startswith("ovmf "))
    name, version, *_, digest = line.split()
    stale = line.replace(version, "2019.01-1").replace(digest, "00" * 32)
    (folder / "packages.lock").write_text(text.replace(line, stale))

    parts = recipe.load_recipe(folder)
    said: list[str] = []
    found, files = lock.obtain(parts, said.append, folder=folder)
    assert "gone from the mirror: ovmf 2019.01-1" in said
    assert any("measurements will be new" in line for line in said)
    assert not found.committed
    assert {p.name for p in found.packages} == set(files)
    assert name in files
    kept = lock.relocked_file((folder / "packages.lock").read_bytes())
    assert kept.read_text() == found.text
    assert kept.is_relative_to(tmp_path / "home")

    said.clear()
    again, _ = lock.obtain(parts, said.append, folder=folder)
    assert again == found
    assert any("made earlier on this machine" in line for line in said)


def test_the_agent_finds_every_module_that_it_imports() -> None:
    base = Path(recipe.__file__).resolve().parents[2]
    have = dict(recipe.agent_files(recipe.load_recipe()))
    waiting, seen = ["guest/main.py", "tee/tpm/__init__.py"], set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        waiting += [found for module in _imports(base / name) for found in _files(base, module)]
    assert not {name for name in seen if name not in have}


def _imports(file: Path) -> Iterator[str]:
    tree = ast.parse(file.read_text())
    # A room's verifier lies beside what the guest needs of the room, and imports its own needs when it is called.
    for node in tree.body if "tee" in file.parts else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))


def _files(base: Path, module: str) -> list[str]:
    parts = module.split(".")
    if parts[0] != "casemate" or len(parts) < 2:
        return []
    names = ["/".join(parts[1:]) + ".py", "/".join(parts[1:]) + "/__init__.py"]
    return [name for name in names if (base / name).is_file()]


def test_one_build_at_a_time_in_a_cache(tmp_path: Path) -> None:
    """Two that build the same image would remove each other's; the second one says that it waits."""
    said, order = queue.Queue[str](), list[str]()

    def second() -> None:
        with builder._alone(tmp_path, said.put):
            order.append("second")

    thread = threading.Thread(target=second)
    with builder._alone(tmp_path, order.append):
        thread.start()
        assert "waiting" in said.get(timeout=30)
        order.append("first")
    thread.join(30)
    assert order == ["first", "second"]
