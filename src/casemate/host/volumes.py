"""Volume disks on this host: raw sparse files of ciphertext, one for each (owner app, name), kept when a workload goes.

The host can lose or replace them; what is in them is the guest's and the broker's business.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from casemate.drivers import paths
from casemate.errors import Unusable
from casemate.host.keeping import private
from casemate.host.state import LIVE, State, VolumeDisk
from casemate.schema.manifest import Manifest, Volume

DEFAULT_MIB = 64
MAX_MIB = 64 << 20


def serial(name: str) -> str:
    """The disk serial by which the guest finds a volume (at most 20 characters)."""
    return "vol-" + name[:16]


def default_path(app: str, name: str) -> Path:
    """`$CASEMATE_HOME/volumes/<app>/<name>.img`."""
    return paths.home() / "volumes" / app.removeprefix("sha256:") / f"{name}.img"


def assign(manifest: Manifest, given: dict[str, Path], sizes: dict[str, int], others: list[State]) -> list[VolumeDisk]:
    """The disk of each volume of the manifest; one that another live workload uses is `Unusable`."""
    names = {volume.name for volume in manifest.volumes}
    for name in {*given, *sizes} - names:
        raise Unusable(f"the manifest has no volume {name!r}", hint=f"it has: {', '.join(sorted(names)) or 'none'}")
    used = {disk.path: other.name for other in others if other.state in LIVE for disk in other.volumes}
    disks = [_disk(volume, given.get(volume.name), sizes.get(volume.name)) for volume in manifest.volumes]
    for disk in disks:
        if disk.path in used:
            raise Unusable(f"volume {disk.name} is in use by workload {used[disk.path]}", hint="stop that one first")
    return disks


def make(disks: list[VolumeDisk]) -> None:
    """Create the files that are not there yet."""
    for disk in disks:
        path = Path(disk.path)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            with private(path, "xb") as file:
                file.truncate(disk.size_mib << 20)
        except FileExistsError:
            continue


def remove(disks: list[VolumeDisk], app_folder: Path) -> list[str]:
    """Remove the disks that lie in this home's volume folder; the names of those removed."""
    gone = []
    for disk in disks:
        path = Path(disk.path)
        if path.is_relative_to(app_folder):
            path.unlink(missing_ok=True)
            gone.append(disk.name)
    return gone


def _disk(volume: Volume, given: Path | None, size: int | None) -> VolumeDisk:
    path = (given or default_path(volume.app, volume.name)).resolve()
    least = volume.minimum_mib
    if size is not None and not least <= size <= MAX_MIB:
        raise Unusable(f"volume {volume.name}: {size} MiB is outside {least} to {MAX_MIB} MiB")
    try:
        status = path.stat()
    except FileNotFoundError:
        return VolumeDisk(name=volume.name, path=str(path), size_mib=size or max(least, DEFAULT_MIB))
    except OSError as error:
        raise Unusable(f"volume {volume.name}: {path} can't be used ({error.strerror})") from error
    if not stat.S_ISREG(status.st_mode) or not os.access(path, os.R_OK | os.W_OK):
        raise Unusable(f"volume {volume.name}: {path} is not a file that can be read and written")
    found = status.st_size >> 20
    if size is not None and size != found:
        raise Unusable(f"volume {volume.name} has {found} MiB already, and {size} MiB are asked for")
    if found < least:
        raise Unusable(f"volume {volume.name} has {found} MiB, and the manifest asks for at least {least}")
    return VolumeDisk(name=volume.name, path=str(path), size_mib=found)
