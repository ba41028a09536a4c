"""The recipe of the guest image: its parts as they are written in `guest-image/recipe.toml`, and its input digest."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from casemate.drivers import tools
from casemate.errors import Malformed, Unusable

__all__ = ["Recipe", "agent_files", "input_digest", "load_recipe", "recorded_registers"]


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Unknown keys are errors: a misspelt key must not change the guest silently."""


class Packages(_Part, frozen=True):
    """Package names; `kernel` is a metapackage, `kernel` and `firmware` come without dependencies."""

    root: list[str]
    drop: list[str]
    kernel: str
    firmware: str


class Tools(_Part, frozen=True):
    """Packages with programs that build or check."""

    root: list[str]


class Kernel(_Part, frozen=True):
    """The fixed words of the command line."""

    command_line: list[str]


class Modules(_Part, frozen=True):
    """Kernel modules by name, in loading order: the initrd's, and sets for the root's init (`root/init` says when)."""

    initrd: list[str]
    root: dict[str, list[str]]


class Erofs(_Part, frozen=True):
    """Identity and options of the root filesystem."""

    uuid: str
    options: list[str]


class Verity(_Part, frozen=True):
    """Identity and salt (hex) of the hash tree."""

    uuid: str
    salt: str


class Root(_Part, frozen=True):
    """What is removed from the unpacked root, the folders it gets, and busybox's links."""

    prune: list[str]
    folders: list[str]
    applets: list[str]


class Agent(_Part, frozen=True):
    """Files and folders of the casemate package that the guest gets, and files in them that it does not get."""

    sources: list[str]
    without: list[str]


class Recipe(_Part, frozen=True):
    """`guest-image/recipe.toml`."""

    version: int
    name: str
    suite: str
    epoch: int
    packages: Packages
    tools: Tools
    kernel: Kernel
    modules: Modules
    erofs: Erofs
    verity: Verity
    root: Root
    agent: Agent


def load_recipe(folder: Path | None = None) -> Recipe:
    """The recipe in `folder` (by default the project's); raises `Malformed`."""
    file = (folder or tools.recipe_folder()) / "recipe.toml"
    try:
        return msgspec.convert(tomllib.loads(file.read_text(encoding="utf-8")), Recipe)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise Malformed(f"{file.name}: {error}") from error


def recorded_registers(firmware: bytes, folder: Path | None = None) -> dict[str, str]:
    """Register values that one boot of this firmware showed (`firmware.toml`); empty for an unknown firmware."""
    file = (folder or tools.recipe_folder()) / "firmware.toml"
    if not file.is_file():
        return {}
    table = tomllib.loads(file.read_text(encoding="utf-8"))
    entry = table.get(hashlib.sha256(firmware).hexdigest(), {})
    return {name: value for name, value in entry.items() if name.startswith("pcr")}


def agent_files(recipe: Recipe, package: Path | None = None) -> Iterator[tuple[str, Path]]:
    """(path below the package, file) of everything of casemate that the guest gets, sorted."""
    # What is not in the guest does not change its measurement, and cannot be turned against it.
    base = package or Path(__file__).resolve().parents[2]
    found: dict[str, Path] = {}
    for source in recipe.agent.sources:
        start = base / source
        for file in sorted(start.rglob("*.py")) if start.is_dir() else [start]:
            if not file.is_file():
                raise Unusable(f"the package has no {source}", hint="correct [agent] in recipe.toml")
            found[file.relative_to(base).as_posix()] = file
    yield from sorted((name, file) for name, file in found.items() if name not in recipe.agent.without)


def input_digest(recipe: Recipe, lock: bytes, folder: Path | None = None) -> str:
    """Names everything that the image follows from: recipe, locks, scripts, agent sources, the builder's code."""
    recipe_folder = folder or tools.recipe_folder()
    digest = hashlib.sha256()
    inputs: dict[str, bytes] = {"packages": lock, "tools": (recipe_folder / "tools.lock").read_bytes()}
    for name in ("recipe.toml", "initrd/init", "root/init", "root/init.py", "firmware.toml"):
        file = recipe_folder / name
        inputs[name] = file.read_bytes() if file.is_file() else b""
    package = Path(__file__).resolve().parents[2]
    for builder in [*Path(__file__).parent.glob("*.py"), package / "boot/verity.py", package / "boot/pcr.py"]:
        inputs[f"builder/{builder.name}"] = builder.read_bytes()
    for name, file in agent_files(recipe):
        inputs[f"agent/{name}"] = file.read_bytes()
    for name, data in sorted(inputs.items()):
        digest.update(f"{name} {len(data)}\n".encode() + data)
    return digest.hexdigest()
