"""A built guest image: the folder with its files and what its `image.json` says."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from casemate.errors import Malformed, Unusable
from casemate.schema.launch import Launch

__all__ = ["FILES", "GuestImage", "Paper", "load"]

FILES = ("firmware.fd", "kernel", "initrd", "disk.img")


class FilePaper(msgspec.Struct, frozen=True):
    """SHA-256 (hex) and size in bytes."""

    sha256: str
    size: int


class Paper(msgspec.Struct, frozen=True, kw_only=True):
    """`image.json`. `measurements` maps a TEE to its expected registers, as far as they follow from the image alone."""

    name: str
    command_line: str
    roothash: str
    files: dict[str, FilePaper]
    recorded: dict[str, str]
    measurements: dict[str, dict[str, str]]
    lock: str
    lock_committed: bool
    inputs: str
    packages: list[str]


@dataclass(frozen=True)
class GuestImage:
    """The image in `folder`."""

    folder: Path
    paper: Paper

    @property
    def firmware(self) -> Path:
        """The generic OVMF, as one file for -bios."""
        return self.folder / "firmware.fd"

    @property
    def kernel(self) -> Path:
        """The kernel, a PE file with the EFI stub."""
        return self.folder / "kernel"

    @property
    def initrd(self) -> Path:
        """The initrd."""
        return self.folder / "initrd"

    @property
    def disk(self) -> Path:
        """The read-only root disk, virtio-blk with serial `root`."""
        return self.folder / "disk.img"

    @property
    def command_line(self) -> str:
        """The kernel command line exactly as it goes to -append."""
        return self.paper.command_line

    def launch(
        self,
        initdata_digest: bytes | None,
        vcpus: int = 1,
        memory_mib: int = 512,
        cpu_type: str = "",
        *,
        firmware: bytes | None = None,
    ) -> Launch:
        """The launch of this image that a room measures; `firmware` replaces the generic one (SNP's amdsev build)."""
        recorded = self.paper.recorded if firmware is None else {}
        return Launch(
            firmware=self._bytes["firmware.fd"] if firmware is None else firmware,
            kernel=self._bytes["kernel"],
            initrd=self._bytes["initrd"],
            command_line=self.command_line,
            initdata_digest=initdata_digest,
            vcpus=vcpus,
            cpu_type=cpu_type,
            memory_mib=memory_mib,
            recorded=recorded,
        )

    @cached_property
    def _bytes(self) -> dict[str, bytes]:
        return {name: (self.folder / name).read_bytes() for name in FILES if name != "disk.img"}

    def check(self) -> None:
        """Compare every file with `image.json`; a difference is `Unusable`."""
        for name in FILES:
            with (self.folder / name).open("rb") as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
            if found != self.paper.files[name].sha256:
                raise Unusable(f"{self.folder / name} was changed", hint="remove the folder and build again")


def load(folder: Path) -> GuestImage:
    """The image in `folder`, its files compared with their digests.

    `Unusable` when there is none or a file was changed, `Malformed` when `image.json` is broken.
    """
    file = folder / "image.json"
    if not file.is_file():
        raise Unusable(f"no guest image in {folder}", hint="casemate guest build")
    try:
        paper = msgspec.json.decode(file.read_bytes(), type=Paper)
    except msgspec.DecodeError as error:
        raise Malformed(f"{file}: {error}") from error
    for name in FILES:
        if name not in paper.files:
            raise Malformed(f"{file}: says nothing of {name}")
        if not (folder / name).is_file() or (folder / name).stat().st_size != paper.files[name].size:
            raise Unusable(f"{folder / name} is missing or cut", hint="remove the folder and build again")
    found = GuestImage(folder, paper)
    found.check()
    return found


def describe(folder: Path, **facts: Any) -> GuestImage:
    """Write `image.json` for the files in `folder`."""
    files = {}
    for name in FILES:
        data = (folder / name).read_bytes()
        files[name] = FilePaper(hashlib.sha256(data).hexdigest(), len(data))
    paper = Paper(files=files, **facts)
    (folder / "image.json").write_bytes(msgspec.json.format(msgspec.json.encode(paper), indent=2) + b"\n")
    return GuestImage(folder, paper)
