"""`casemate measure`: the register values that a launch will show, computed from its files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from casemate.cli import output

if TYPE_CHECKING:
    from casemate.host.measuring import Sources
    from casemate.schema.measurement import Measurement

__all__ = ["measure"]
_Command = TypeVar("_Command", bound=Callable[..., Any])
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def _number(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """A number, also as 0x…, which is how features are written."""
    try:
        return None if value is None else int(value, 0)
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a number", ctx, param) from None


def _files(command: _Command) -> _Command:
    """The options that name what is measured."""
    for option in reversed(
        (
            click.option("--firmware", type=_FILE, help="Firmware file, as the monitor loads it."),
            click.option("--firmware-only", is_flag=True, help="Nothing but the firmware is handed over."),
            click.option("--kernel", type=_FILE, help="Kernel of a direct boot."),
            click.option("--initrd", type=_FILE, help="Its initrd."),
            click.option("--cmdline", "command_line", metavar="TEXT", help="Its command line, exactly."),
            click.option("--cmdline-file", "command_line_file", type=_FILE, help="A file with the command line."),
            click.option("--image", type=_FILE, help="A whole image (an EIF), where the platform boots one."),
            click.option("--initdata", type=_FILE, help="Document that the launch binds."),
            click.option("--event-log", type=_FILE, help="A machine's log, for registers that no file decides."),
            click.option("--vcpus", type=click.IntRange(1, 64), default=1, show_default=True, help="Virtual CPUs."),
            click.option("--vcpu-type", "cpu_type", default="", help="QEMU's CPU model, where it counts (EPYC-v4)."),
            click.option(
                "--memory", "memory_mib", type=click.IntRange(128, 64 << 20), default=512, help="MiB of memory."
            ),
            click.option("--vmm", default="", help="Who launches it: qemu (default) or another that the TEE knows."),
            click.option("--guest-features", callback=_number, help="Features switched on for the guest (0x1)."),
        )
    ):
        command = option(command)
    return command


@click.command()
@click.option("--tee", required=True, help="Whose registers: snp, tdx, tpm, nitro.")
@_files
@output.json_option
@click.pass_context
def measure(ctx: click.Context, /, tee: str, as_json: bool, **options: Any) -> None:
    """Print the register values that a launch will show, as reference values of it.

    Without --kernel, --image and --firmware-only, the locked guest image is measured. Exit 1: the event log that was
    given is not of this launch.
    """
    from casemate import tee as rooms
    from casemate.host import measuring

    room = rooms.room(tee)
    sources = measuring.Sources(**options)
    launch, origin = measuring.launch(sources, room, output.note)
    found = room.measure(launch)
    output.emit(_facts(found, sources, origin), as_json=as_json, text=lambda: _page(found, origin))
    ctx.exit(0 if all(finding.ok for finding in found.findings) else 1)


def _facts(found: Measurement, sources: Sources, origin: str) -> dict[str, Any]:
    named = {"vcpus": sources.vcpus, "cpu_type": sources.cpu_type, "memory_mib": sources.memory_mib, "vmm": sources.vmm}
    checks = [finding.as_json() for finding in found.findings]
    return {"tee": found.tee, "values": found.values, "origin": origin, "launch": named, "checks": checks}


def _page(found: Measurement, origin: str) -> None:
    click.echo(output.clean(f"{found.tee}, {origin}"))
    for name, value in sorted(found.values.items(), key=lambda item: (len(item[0]), item[0])):
        click.echo(f"  {name:<12} {value}")
    for finding in found.findings:
        click.echo(f"  {'✓' if finding.ok else '✗'} {output.clean(f'{finding.rule}: {finding.found}')}")
        click.echo(output.clean(f"      {finding.expected}" + (f"; {finding.hint}" if finding.hint else "")))
