"""Real boots for tests and benchmarks: an image with a probe as process 1, a software TPM, QEMU, and the console."""

from __future__ import annotations

import gzip
import json
import os
import struct
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from casemate.drivers import accelerator, lastwords, paths, qemu, swtpm, tools
from casemate.errors import Unavailable
from casemate.host.guestimage import GuestImage, builder, lock, recipe
from casemate.host.guestimage import load as load_image
from casemate.schema.launch import Machine

__all__ = ["Boot", "boot", "initdata_disk", "probe_image"]

_MARK = "casemate-probe "


@dataclass(frozen=True)
class Boot:
    """What one boot showed: the console's lines, the probe's facts (None without them), and when they came (s)."""

    console: list[str]
    facts: dict[str, Any] | None
    seconds: float
    cpu_seconds: float
    exit_code: int

    def sentence(self) -> str:
        """The last line that the guest's own scripts wrote, without its prefix."""
        return next((x.split("casemate: ", 1)[1] for x in reversed(self.console) if "casemate: " in x), "")


def probe_image(script: Path | None = None) -> GuestImage:
    """The guest image with a probe in the agent's place; cached by everything that it follows from."""
    script = script or tools.recipe_folder() / "root/probe.py"
    parts = recipe.load_recipe()
    found, files = lock.obtain(parts, lambda _: None)
    inputs = recipe.input_digest(parts, found.text.encode() + script.read_bytes())
    target = paths.cache() / "guest" / f"probe-{inputs[:24]}"
    if (target / "image.json").is_file():
        return load_image(target)
    return builder.build(parts, found, files, target, process_one=script)


def initdata_disk(document: bytes) -> bytes:
    """A well-formed initdata disk of any bytes (no manifest needed)."""
    stream = gzip.compress(document, mtime=0)
    disk = b"initdata" + struct.pack("<Q", len(stream)) + stream
    return disk + bytes(-len(disk) % 512)


def boot(
    image: GuestImage,
    initdata: bytes | None,
    *,
    memory_mib: int = 512,
    timeout: float = 120,
    disks: tuple[qemu.Disk, ...] = (),
    kill_at: str = "",
) -> Boot:
    """One boot to its end: power off, or a kill after `timeout` seconds, or when the console shows `kill_at`.

    `initdata` is the content of its disk, `disks` are volumes.
    """
    with tempfile.TemporaryDirectory(prefix="casemate-boot-") as name:
        folder = Path(name)
        drives = [qemu.Disk(image.disk, "root"), *disks]
        if initdata is not None:
            (folder / "initdata").write_bytes(initdata)
            drives.append(qemu.Disk(folder / "initdata", "initdata"))
        state = folder / "tpm"
        state.mkdir(mode=0o700)
        setup: list[str | Path] = [swtpm.program("swtpm_setup"), "--tpm2", "--tpmstate", state, "--pcr-banks", "sha256"]
        made = subprocess.run(setup, check=False, capture_output=True)
        if made.returncode:
            raise Unavailable(f"swtpm_setup failed: {lastwords.of(made)}")
        server = swtpm.serve(state, folder / "tpm.sock")
        try:
            vm = qemu.Vm(
                name="probe",
                machine=Machine(machine="q35", vtpm=True),
                accelerator=accelerator.choose(),
                firmware=image.firmware,
                kernel=image.kernel,
                initrd=image.initrd,
                command_line=image.command_line,
                vcpus=1,
                memory_mib=memory_mib,
                disks=tuple(drives),
                tpm_socket="tpm.sock",
            )
            return _run(qemu.arguments(vm, qemu.find()), folder, timeout, kill_at)
        finally:
            server.terminate()
            server.wait()


def _run(arguments: list[str], folder: Path, timeout: float, kill_at: str) -> Boot:
    begun = time.monotonic()
    process = subprocess.Popen(arguments, cwd=folder, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    seconds, cpu = 0.0, 0.0
    console = folder / qemu.CONSOLE_LOG
    text = ""
    while time.monotonic() - begun < timeout:
        ended = process.poll() is not None
        text = console.read_text(encoding="utf-8", errors="replace") if console.exists() else ""
        if not seconds and (_MARK in text or "casemate: " in text):
            seconds = time.monotonic() - begun
            cpu = _cpu_seconds(process.pid)
        if ended or (kill_at and kill_at in text):
            break
        time.sleep(0.02)
    if process.poll() is None:
        process.kill()
    _, errors = process.communicate()
    lines = text.splitlines() + errors.decode(errors="replace").splitlines()
    fact = next((line.split(_MARK, 1)[1] for line in lines if _MARK in line), None)
    return Boot(lines, json.loads(fact) if fact else None, seconds, cpu, process.returncode)


def _cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
