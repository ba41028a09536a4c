"""`casemate guest`: build the guest image and print the values that its launches will show."""

from __future__ import annotations

from pathlib import Path

import click

from casemate.cli import failures, image_arguments, output

__all__ = ["guest"]
_MAX_INITDATA = 4 << 20
_MAX_FIRMWARE = 64 << 20


@click.group()
def guest() -> None:
    """Build and measure the guest image."""


@guest.command()
@click.option("--relock", is_flag=True, help="Lock the newest package versions first (writes guest-image/*.lock).")
@click.option("--into", type=click.Path(path_type=Path), help="Build anew into this folder instead of the cache.")
@output.json_option
def build(relock: bool, into: Path | None, as_json: bool) -> None:
    """Build the guest image, or take it from the cache."""
    from casemate.host import guestimage

    with failures.signals_told():
        if relock:
            guestimage.relock_all(output.note)
        image = guestimage.build_into(into, output.note) if into else guestimage.ensure(output.note)
    if not image.paper.lock_committed:
        output.note("built from a lock made on this machine: its measurements differ from the published ones")
    facts = {
        "folder": str(image.folder),
        "command_line": image.command_line,
        "files": {name: file.sha256 for name, file in image.paper.files.items()},
        "measurements": image.paper.measurements,
        "lock": image.paper.lock,
        "lock_committed": image.paper.lock_committed,
    }
    output.emit(facts, as_json=as_json, text=lambda: _show(str(image.folder), image.paper.measurements["tpm"]))


@guest.command()
@click.option("--tee", default="tpm", show_default=True, help="The TEE whose registers are asked for.")
@click.option("--firmware", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Another firmware.")
@click.option("--vcpus", type=click.IntRange(1, 64), default=1, show_default=True, help="Number of virtual CPUs.")
@click.option("--cpu-type", default="", help="QEMU's CPU model, where the measurement needs one (EPYC-v4).")
@click.option(
    "--initdata", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Document that the launch binds."
)
@output.json_option
def measure(tee: str, firmware: Path | None, vcpus: int, cpu_type: str, initdata: Path | None, as_json: bool) -> None:
    """Print the register values that a launch of the guest image will show."""
    import hashlib

    from casemate import tee as rooms
    from casemate.host import guestimage, measuring
    from casemate.schema.launch import Launch

    digest = hashlib.sha256(image_arguments.whole(initdata, _MAX_INITDATA)).digest() if initdata else None
    other = image_arguments.whole(firmware, _MAX_FIRMWARE) if firmware else None
    room = rooms.room(tee)
    measuring.rehearse(room, Launch(firmware=other or b"", vcpus=vcpus, cpu_type=cpu_type, initdata_digest=digest))
    image = guestimage.ensure(output.note)
    launch = image.launch(digest, vcpus, cpu_type=cpu_type, firmware=other)
    values = room.measure(launch).values
    facts = {"tee": tee, "image": str(image.folder), "vcpus": vcpus, "cpu_type": cpu_type, "values": values}
    output.emit(facts, as_json=as_json, text=lambda: _show(f"{tee}, image {image.folder}", values))


def _show(title: str, values: dict[str, str]) -> None:
    click.echo(title)
    for name, value in sorted(values.items(), key=lambda item: (len(item[0]), item[0])):
        click.echo(f"  {name:<12} {value}")
