"""A container of the manifest as an OCI bundle: `config.json` (OCI runtime spec 1.0.2) and a root folder.

Closed by default: no capability, no new privileges, read-only root, six devices, own pid, ipc, uts, mount and cgroup
namespaces. The network namespace is the VM's, shared by the workload's containers (a pod); `firewall.py` guards its
edge. A container sees no TPM, no configfs, no securityfs and no other container's files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from casemate.errors import Malformed, Unusable
from casemate.guest import inside, seccomp, users
from casemate.guest.secrets import Kept
from casemate.guest.users import User
from casemate.schema.manifest import Container

if TYPE_CHECKING:
    from casemate.image.manifest import Process

API_SOCKET = "/run/casemate/api.sock"
SECRETS = "/run/casemate/secrets"
NAMESERVER = "10.0.2.3"  # of the VM's user network; its answers are the host's, so peers are known by their keys
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CPU_PERIOD = 100_000
_HIDDEN = (
    *("/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats"),
    *("/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/proc/kallsyms", "/proc/kmsg"),
    *("/proc/iomem", "/proc/kpagecgroup", "/proc/kpagecount", "/proc/kpageflags", "/proc/slabinfo"),
    *("/sys/firmware", "/sys/kernel/config", "/sys/kernel/security", "/sys/kernel/debug", "/sys/kernel/tracing"),
    *("/sys/class/tpm", "/sys/class/tpmrm", "/sys/class/virtio-ports", "/sys/class/misc", "/sys/devices/virtual/misc"),
    # Where the machine's own devices are: TPM registers, virtio ports, serial numbers of disks.
    *("/sys/devices/LNXSYSTM:00", "/sys/devices/pci0000:00", "/sys/devices/pnp0", "/sys/devices/platform"),
    *("/sys/bus/acpi", "/sys/bus/pci", "/sys/bus/platform", "/sys/bus/pnp", "/sys/bus/virtio", "/sys/dev/char"),
    *("/sys/class/block", "/sys/class/bdi", "/sys/block", "/sys/dev/block", "/sys/bus/tpm"),
    *("/sys/devices/virtual/powercap", "/sys/devices/virtual/block", "/sys/devices/virtual/tpm", "/sys/module"),
)
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


class Places(NamedTuple):
    """Where a container's things lie on the agent's tmpfs; each folder is its own.

    `rootfs` is what the container sees as /; `volumes` maps names to mount points; `api` is its socket or None.
    """

    bundle: Path
    rootfs: Path
    secrets: Path
    files: Path
    volumes: Mapping[str, Path]
    api: Path | None = None


def plan_secrets(container: Container, places: Places, user: User) -> tuple[list[Kept], list[dict[str, Any]]]:
    """Where the secret files go, and the mounts that show them; links are put into the root folder as needed.

    A secret's folder becomes a mount when the image has nothing there; otherwise the file is a link into `SECRETS`.
    """
    covered = [*container.tmpfs, *(mount.path for mount in container.mounts)]
    folders: dict[str, str] = {}
    kept, mounts = [], []
    for secret in container.secrets:
        if secret.file is None:
            continue
        parent, _, name = secret.file.rpartition("/")
        if parent in covered:
            raise Unusable(
                f"container {container.name}: the secret {secret.file} lies directly in a mount of the container",
                hint=f"put it into a folder of its own, {parent}/secrets/{name}",
            )
        if parent not in folders:
            folders[parent] = str(len(folders))
            free = parent and (_is_below(parent, covered) or inside.is_empty_folder(places.rootfs, parent))
            shown = parent if free else f"{SECRETS}/{folders[parent]}"
            mounts.append(_bind(places.secrets / folders[parent], shown, read_only=True))
        shown = next(m["destination"] for m in mounts if m["source"].endswith("/" + folders[parent]))
        if shown != parent:
            inside.link(places.rootfs, secret.file, f"{shown}/{name}")
        folder = places.secrets / folders[parent]
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        kept.append(Kept(container.name, secret, folder / name, user))
    return kept, mounts


def build(
    container: Container,
    image: Process,
    places: Places,
    *,
    user: User,
    environment: Mapping[str, str],
    secret_mounts: list[dict[str, Any]],
) -> None:
    """Write the bundle: plain files, then config.json (0600: it may hold secret variables)."""
    mounts = _system_mounts() + _own_mounts(container, places, user) + secret_mounts
    system, own = mounts[:_SYSTEM], mounts[_SYSTEM:]
    # A mount inside another must come after it; among equals the order stays.
    mounts = system + sorted(own, key=lambda mount: mount["destination"].count("/"))
    config = {
        "ociVersion": "1.0.2",
        "hostname": container.name,
        "root": {"path": str(places.rootfs), "readonly": container.read_only_root},
        "process": _process(container, image, places, user, environment),
        "mounts": mounts,
        "linux": _linux(container),
    }
    places.bundle.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(places.bundle / "config.json", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        json.dump(config, stream)


def user_of(container: Container, image: Process, rootfs: Path) -> User:
    """The container's user; see `users.find`."""
    return users.find(container.user, image.User, rootfs)


def _process(
    container: Container, image: Process, places: Places, user: User, environment: Mapping[str, str]
) -> dict[str, Any]:
    words = list(container.command if container.command is not None else image.Entrypoint or ())
    if container.args is not None:
        words += container.args
    elif container.command is None:
        words += image.Cmd or ()
    if not words:
        raise Unusable(f"container {container.name}: neither manifest nor image names a command")
    folder = container.working_dir or image.WorkingDir or "/"
    if not folder.startswith("/"):
        raise Malformed(f"image: its working folder {folder[:100]!r} is not absolute")
    capabilities = sorted(container.capabilities)
    return {
        "terminal": False,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.groups)},
        "args": words,
        "env": _environment(container, image, user, environment),
        "cwd": folder,
        "noNewPrivileges": True,
        "oomScoreAdj": 0,  # the agent protects itself; its containers must not inherit that
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted", "inheritable", "ambient"), capabilities),
    }


def _environment(container: Container, image: Process, user: User, secret: Mapping[str, str]) -> list[str]:
    """Image, then manifest, then secrets; a later one of the same name wins."""
    found = {"PATH": PATH.partition("=")[2], "HOME": user.home}
    for line in image.Env or ():
        name, _, value = line.partition("=")
        found[name] = value
    found |= {variable.name: variable.value for variable in container.env} | dict(secret)
    return [f"{name}={value}" for name, value in found.items() if name]


def _own_mounts(container: Container, places: Places, user: User) -> list[dict[str, Any]]:
    found = [_tmpfs(path, user) for path in container.tmpfs]
    for mount in container.mounts:
        found.append(_bind(places.volumes[mount.volume], mount.path, read_only=mount.read_only))
    places.files.mkdir(mode=0o755, parents=True, exist_ok=True)
    given = [(file.path, file.content, file.mode, user.uid, user.gid) for file in container.files]
    for index, (path, content, mode, uid, gid) in enumerate(_defaults(container) + given):
        source = places.files / str(index)
        source.write_text(content, encoding="utf-8")
        source.chmod(int(mode, 8))
        os.chown(source, uid, gid)
        found.append(_bind(source, path, read_only=True))
    if places.api is not None:
        found.append(_bind(places.api, API_SOCKET, read_only=False))
    return found


def _defaults(container: Container) -> list[tuple[str, str, str, int, int]]:
    """The files that a program expects of a machine, unless the manifest gives its own."""
    own = {file.path for file in container.files}
    hosts = f"127.0.0.1 localhost\n::1 localhost\n127.0.0.1 {container.name}\n"
    given = {
        "/etc/hosts": hosts,
        "/etc/hostname": f"{container.name}\n",
        "/etc/resolv.conf": f"nameserver {NAMESERVER}\n",
    }
    return [(path, content, "0444", 0, 0) for path, content in given.items() if path not in own]


def _bind(source: Path, destination: str, *, read_only: bool) -> dict[str, Any]:
    options = ["rbind", "rprivate", "nosuid", "nodev", *(["ro"] if read_only else ["rw"])]
    return {"destination": destination, "type": "bind", "source": str(source), "options": options}


def _tmpfs(path: str, user: User) -> dict[str, Any]:
    """A tmpfs for the container's user; /tmp and /var/tmp and /run as everybody expects them."""
    shared = path in ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - paths in the container
    who = ["mode=1777"] if shared else ["mode=0755", f"uid={user.uid}", f"gid={user.gid}"]
    return {"destination": path, "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", *who]}


_SYSTEM = 6


def _system_mounts() -> list[dict[str, Any]]:
    strict = ["nosuid", "noexec", "nodev"]
    return [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": strict},
        {
            "destination": "/dev",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "noexec", "mode=755", "size=64k"],
        },
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
        },
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": [*strict, "mode=1777"]},  # noqa: S108
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*strict, "ro"]},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": [*strict, "ro"]},
    ]


def _linux(container: Container) -> dict[str, Any]:
    limits = container.limits
    resources: dict[str, Any] = {"devices": [{"allow": False, "access": "rwm"}]}
    if limits.memory_mib is not None:
        memory = limits.memory_mib << 20
        resources["memory"] = {"limit": memory, "swap": memory}
    if limits.pids is not None:
        resources["pids"] = {"limit": limits.pids}
    if limits.cpus is not None:
        resources["cpu"] = {"quota": max(1000, int(limits.cpus * _CPU_PERIOD)), "period": _CPU_PERIOD}
    return {
        "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "cgroup")],
        "cgroupsPath": f"/casemate/{container.name}",
        "resources": resources,
        "maskedPaths": list(_HIDDEN),
        "readonlyPaths": list(_READ_ONLY),
        "seccomp": seccomp.profile(container.capabilities),
        "rootfsPropagation": "private",
    }


def _is_below(path: str, folders: list[str]) -> bool:
    return any(path.startswith(folder + "/") for folder in folders)
