"""The guest's root folder: locked packages, pruned, with the agent, the modules and the files that we write."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from casemate.drivers import lastwords, tools
from casemate.drivers.debs import Package
from casemate.errors import Unavailable, Unusable
from casemate.host.guestimage.modules import Modules
from casemate.host.guestimage.recipe import Recipe, agent_files

__all__ = ["assemble", "unpack_root"]

_AGENT = "usr/lib/casemate"
_AUTHORITIES = "usr/lib/ssl/cert.pem"  # where OpenSSL and Python look, both built by Debian
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/hostname": "casemate\n",
    "etc/hosts": "127.0.0.1 localhost casemate\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
    "etc/resolv.conf": "nameserver 10.0.2.3\n",
}


def unpack_root(packages: list[Package], files: Mapping[str, Path], folder: Path) -> None:
    """Unpack the root's packages: base-files first, whose links make /bin and /lib parts of /usr; then by name."""
    ordered = sorted(packages, key=lambda p: (p.name != "base-files", p.name))
    tools.unpack((files[p.name] for p in ordered), folder)


def assemble(recipe: Recipe, root: Path, modules: Modules, init: Path, process_one: Path) -> None:
    """Turn the unpacked packages in `root` into the guest's root folder; `init` starts the Python of `process_one`."""
    authorities = _authorities(root)
    _prune(recipe, root)
    _write(root / _AUTHORITIES, authorities)
    for name in recipe.root.folders:
        (root / name).mkdir(parents=True, exist_ok=True)
    for name, text in _FILES.items():
        _write(root / name, text.encode())
    for applet in recipe.root.applets:
        link = root / "usr/bin" / applet
        if not link.is_symlink():
            link.symlink_to("busybox")
    _add_modules(recipe, root, modules)
    _add_agent(recipe, root, init, process_one)
    _compile(root)
    _settle(root)
    _check_libraries(root)


def _authorities(root: Path) -> bytes:
    """Debian's certificate authorities in one file, which its maintainer script would make: for https registries.

    What a registry serves counts by digest and signature; its TLS keeps credentials from the network, no more.
    """
    files = sorted((root / "usr/share/ca-certificates/mozilla").glob("*.crt"), key=lambda file: file.name)
    return b"".join(file.read_bytes() for file in files)


def _prune(recipe: Recipe, root: Path) -> None:
    for pattern in recipe.root.prune:
        for found in sorted(root.glob(pattern)):
            if found.is_dir() and not found.is_symlink():
                shutil.rmtree(found)
            else:
                found.unlink()


def _add_modules(recipe: Recipe, root: Path, modules: Modules) -> None:
    """The modules with modprobe's table, and one list of names for each set of the recipe."""
    before = modules.ordered(recipe.modules.initrd)
    known: list[str] = []
    for name, wanted in recipe.modules.root.items():
        order = modules.ordered(wanted, loaded=[*before, *known])
        known += order
        _write(root / "usr/lib/modules" / f"load-{name}", " ".join(order).encode() + b"\n")
    folder = root / "usr/lib/modules" / modules.release
    _write(folder / "modules.dep", modules.table([*before, *known]))
    for name in known:
        _write(folder / f"{name}.ko", modules.content(name))


def _add_agent(recipe: Recipe, root: Path, init: Path, process_one: Path) -> None:
    _write(root / "usr/sbin/init", init.read_bytes(), 0o755)
    _write(root / _AGENT / "init.py", process_one.read_bytes())
    for name, file in agent_files(recipe):
        _write(root / _AGENT / "casemate" / name, file.read_bytes())


def _write(file: Path, data: bytes, mode: int = 0o644) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    file.chmod(mode)


def _compile(root: Path) -> None:
    """Byte code by the guest's own Python, without times in it and never checked against its source again."""
    libraries = root / "usr/lib/x86_64-linux-gnu"
    python = next(iter(sorted((root / "usr/bin").glob("python3.[0-9]*"))), None)
    if python is None:
        raise Unusable("the root has no Python", hint="add python3 to [packages] in recipe.toml")
    folders = [root / "usr/lib" / python.name, root / "usr/lib/python3", root / _AGENT]
    said = subprocess.run(
        [
            libraries / "ld-linux-x86-64.so.2", "--library-path", libraries, "--argv0", python, python, "-S", "-B",
            "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash",
            "-e", root,  # a link out of the root would bring in a file of the machine that builds
            "-s", root, "-p", "/", *folders,
        ],
        capture_output=True, text=True, check=False,
        env={"PYTHONHOME": str(root / "usr"), "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    if said.returncode:
        raise Unavailable(f"byte-compiling the guest failed: {lastwords.of(said)}")


def _check_libraries(root: Path) -> None:
    """Every program and every compiled Python module finds its libraries in the root itself."""
    compiled = [*(root / "usr/lib/python3").rglob("*.so"), *(root / "usr/lib").glob("python3.*/lib-dynload/*.so")]
    for file in [*(root / "usr/bin").iterdir(), *(root / "usr/sbin").iterdir(), *compiled]:
        if not file.is_symlink() and file.name != "busybox" and file.read_bytes()[:4] == b"\x7fELF":
            tools.libraries(root, file)


def _settle(root: Path) -> None:
    """Fixed modes for folders and files; nothing in the guest is set-uid."""
    for folder, _, files in os.walk(root):
        Path(folder).chmod(0o755)
        for name in files:
            file = Path(folder, name)
            if not file.is_symlink():
                file.chmod(0o755 if file.stat().st_mode & 0o100 else 0o644)
