"""From a manifest to a running VM: judge what was asked, lay out the workload's folder, hand it to a supervisor.

Order (each step leaves something that `workloads.settle` can clear up when the command is killed after it):
  1 record under the host-wide lock: name, ports and volumes are this workload's from here on
  2 initdata disk, volume disks, vTPM state, the launch plan
  3 supervisor, which inherits the locked folder
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from casemate.boot import initdata
from casemate.drivers import accelerator, paths, qemu, userfiles
from casemate.errors import CasemateError, Unavailable, Unusable
from casemate.host import control, keeping, plan, ports, volumes, workloads
from casemate.host.guestimage import GuestImage
from casemate.host.state import DONE, State
from casemate.host.workloads import Workload
from casemate.schema.launch import Launch, Machine
from casemate.schema.manifest import Manifest
from casemate.tee import room

DEFAULT_MEMORY_MIB = 512
MAX_VCPUS = 64
MAX_FIRMWARE = 64 << 20
MAX_INITRD = 512 << 20
POOL_SIZE = 2
INITDATA = "initdata.img"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}")
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What the caller may choose; None leaves it to the manifest's minimum and the defaults.

    `extra_command_line`, `initrd` and `firmware` are for development: they change the measurement, so a broker refuses.
    """

    publish: tuple[str, ...] = ()
    memory_mib: int | None = None
    vcpus: int | None = None
    volumes: dict[str, Path] = field(default_factory=dict)
    volume_sizes: dict[str, int] = field(default_factory=dict)
    name: str = ""
    tee: str = "tpm"
    cpu_type: str = ""
    extra_command_line: str = ""
    initrd: Path | None = None
    firmware: Path | None = None
    start_seconds: float = plan.START_SECONDS


@dataclass(frozen=True)
class Job:
    """What is known of a launch before anything is written."""

    manifest: Manifest
    image: GuestImage
    options: Options
    document: bytes
    launch: Launch
    machine: Machine
    firmware: Path
    accelerator: str
    program: str


def prepare(manifest: Manifest, image: GuestImage, options: Options, progress: Progress) -> Workload:
    """Lay out a workload that is ready to start; it is locked by this process. On an error nothing is left."""
    job = plan_job(manifest, image, options)
    state = _record(job)
    with workloads.registry():
        others = [other for _, other in workloads.everything()]
        state.name = _name(options.name, manifest.name, others)
        state.ports = ports.assign(options.publish, manifest, others)
        state.volumes = volumes.assign(manifest, options.volumes, options.volume_sizes, others)
        workload = workloads.create(state)
    try:
        _lay_out(workload, state, job)
    except BaseException:
        discard(workload)
        raise
    size = f"{state.vcpus} CPU, {state.memory_mib} MiB"
    progress(f"workload {state.name} ({state.id}), accelerator {state.accelerator}, {size}")
    return workload


def plan_job(manifest: Manifest, image: GuestImage, options: Options) -> Job:
    """Judge what is asked against this host and the manifest; nothing is written."""
    program = qemu.find()
    chosen = accelerator.choose(paths.home() / "accelerator.json")
    document = initdata.document(manifest)
    tee = room(options.tee)
    vcpus, memory = _size(manifest, options)
    launch = image.launch(initdata.digest(document), vcpus, memory, options.cpu_type)
    machine = tee.machine(launch)
    if machine.needs_kvm and chosen != accelerator.KVM:
        raise Unusable(f"{options.tee} needs KVM, and KVM does not work here", hint="use a host with that hardware")
    firmware = options.firmware or _firmware(image, machine.firmware)
    changes: dict[str, object] = {}
    if firmware != image.firmware:
        changes |= {"firmware": userfiles.read(firmware, MAX_FIRMWARE), "recorded": {}}
    if options.extra_command_line:
        changes["command_line"] = f"{launch.command_line} {options.extra_command_line}"
    if options.initrd is not None:
        changes["initrd"] = userfiles.read(options.initrd, MAX_INITRD)
    launch = msgspec.structs.replace(launch, **changes)
    return Job(manifest, image, options, document, launch, machine, firmware, chosen, program)


def start(workload: Workload) -> None:
    """Hand the workload to a supervisor of its own, which goes on when this command ends."""
    if workload.lock is None:
        raise Unusable(f"workload {workload.id} is not locked by this command")
    command = [sys.executable, "-P", "-m", "casemate.host.supervisor", str(workload.folder), str(workload.lock)]
    with keeping.private(workload.folder / workloads.SUPERVISOR_LOG, "ab") as log:
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(workload.lock,), umask=0o077,
            start_new_session=True,
        )  # fmt: skip
    workload.release()


def discard(workload: Workload) -> None:
    """Remove a workload that never started."""
    workload.release()
    state = workloads.settle(workload)
    if state.state in DONE:
        workloads.remove(workload)


def wait(workload: Workload, seen: Callable[[State], None], *, seconds: float) -> State:
    """Wait until the workload runs or has ended, showing each new state to `seen`."""
    deadline = time.monotonic() + seconds
    while True:
        state = workloads.settle(workload)
        seen(state)
        if state.state == "running" or state.state in DONE:
            return state
        if time.monotonic() > deadline:
            raise Unavailable(f"workload {state.name} did not start within {seconds:.0f} s", hint="casemate inspect it")
        time.sleep(0.05)


def _size(manifest: Manifest, options: Options) -> tuple[int, int]:
    """(CPUs, MiB) of the VM; the manifest's minima count."""
    vcpus = options.vcpus or max(1, manifest.minimum.cpus)
    memory = options.memory_mib or max(DEFAULT_MEMORY_MIB, manifest.minimum.memory_mib)
    if vcpus < manifest.minimum.cpus or memory < manifest.minimum.memory_mib:
        least = f"{manifest.minimum.cpus} CPU and {manifest.minimum.memory_mib} MiB"
        raise Unusable(f"the manifest asks for at least {least}", hint="give more with --vcpus and --memory")
    if vcpus > MAX_VCPUS:
        raise Unusable(f"{vcpus} CPUs are asked for, at most {MAX_VCPUS} are possible")
    return vcpus, memory


def _firmware(image: GuestImage, role: str) -> Path:
    """The image's own firmware, or the one for a TEE that needs its own build: `firmware.<role>.fd` beside it."""
    if role == "generic":
        return image.firmware
    path = image.folder / f"firmware.{role}.fd"
    if not path.is_file():
        raise Unusable(f"this platform needs the firmware build {role!r}", hint="name it with --firmware FILE")
    return path


def _record(job: Job) -> State:
    manifest, launch, tee = job.manifest, job.launch, job.options.tee
    state = State(id="", name="", created=time.time(), tee=tee, accelerator=job.accelerator, app=manifest.app)
    state.manifest_digest = manifest.digest
    state.initdata_digest = launch.initdata_digest.hex() if launch.initdata_digest else ""
    state.image, state.command_line = job.image.paper.name, launch.command_line
    state.vcpus, state.memory_mib = launch.vcpus, launch.memory_mib
    state.logs_granted = manifest.host.logs
    state.containers = control.expect([container.name for container in manifest.containers])
    try:
        state.measurement = room(tee).measure(launch).values
    except CasemateError as error:
        state.message = f"the measurement can't be predicted: {error}"[:500]
    return state


def _name(wanted: str, usual: str, others: list[State]) -> str:
    """A name that no other workload has: the wanted one, or the manifest's with a number behind it."""
    taken = {other.name for other in others}
    if wanted:
        if not _NAME.fullmatch(wanted):
            raise Unusable(
                f"name {wanted[:80]!r} cannot be used", hint="letters, digits and _ . - (at most 63) are wanted"
            )
        if wanted in {other.id for other in others}:
            raise Unusable(f"{wanted} is the id of another workload", hint="choose another --name")
        if wanted in taken:
            raise Unusable(f"a workload is named {wanted} already", hint=f"casemate rm {wanted}, or another --name")
        return wanted
    if usual not in taken:
        return usual
    return next(name for number in range(2, len(taken) + 3) if (name := f"{usual}-{number}") not in taken)


def _lay_out(workload: Workload, state: State, job: Job) -> None:
    folder, machine, host = workload.folder, job.machine, job.manifest.host
    _write(folder / INITDATA, initdata.disk(job.document))
    _write(folder / "manifest.json", job.manifest.canonical())
    volumes.make(state.volumes)
    if machine.vtpm:
        from casemate.host.pool import default

        pool = default()
        pool.take(folder / workloads.TPM_FOLDER)
        pool.refill(POOL_SIZE)
    made = plan.Plan(
        qemu=qemu.arguments(_vm(folder, state, job), job.program),
        vtpm=machine.vtpm,
        containers=list(state.containers),
        logs=host.logs,
        exec=host.exec,
        signals=list(host.signals),
        start_seconds=job.options.start_seconds,
    )
    _write(folder / plan.PLAN, msgspec.json.encode(made))


def _vm(folder: Path, state: State, job: Job) -> qemu.Vm:
    disks = [qemu.Disk(job.image.disk.absolute(), "root"), qemu.Disk(folder / INITDATA, "initdata")]
    disks += [qemu.Disk(Path(disk.path), volumes.serial(disk.name), read_only=False) for disk in state.volumes]
    return qemu.Vm(
        name=f"casemate-{state.id}",
        machine=job.machine,
        accelerator=state.accelerator,
        firmware=job.firmware.absolute(),
        kernel=job.image.kernel.absolute(),
        initrd=(job.options.initrd or job.image.initrd).absolute(),
        command_line=state.command_line,
        vcpus=state.vcpus,
        memory_mib=state.memory_mib,
        disks=tuple(disks),
        forwards=tuple(qemu.Forward(p.address, p.host, p.container, p.protocol) for p in state.ports),
        tpm_socket=workloads.TPM_SOCKET if job.machine.vtpm else None,
    )


def _write(path: Path, data: bytes) -> None:
    with keeping.private(path, "wb") as file:
        file.write(data)
