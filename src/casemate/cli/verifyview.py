"""The result of `casemate verify PATH...` for people, and the members that only the command line adds to its JSON."""

from __future__ import annotations

import re
from typing import Any

import click

from casemate.cli import output
from casemate.schema.claims import Claims
from casemate.verifier import result as results
from casemate.verifier.result import ACCEPTED, UNUSABLE, Result

_TITLE = re.compile(r"The (.+?) room: ([^.]+)\.")


def as_json(result: Result, token: str = "") -> dict[str, Any]:
    """The result's JSON, with the token where one was asked for."""
    return results.as_json(result) | ({"ear": token} if token else {})


def page(result: Result, token: str = "") -> None:
    """What it is, who vouches, what is measured, every rule, how long it holds; or what is missing."""
    if result.verdict == UNUSABLE:
        click.echo(f"UNUSABLE  {output.clean(result.reason)}")
        if result.hint:
            click.echo(f"to do     {output.clean(result.hint)}")
        return
    click.echo("ACCEPTED" if result.verdict == ACCEPTED else "REFUSED")
    _line("what", _title(result.tee))
    if result.claims:
        _claims(result.claims)
        until = result.valid_until
        _line("until", f"{until:%Y-%m-%d %H:%M:%S} UTC" if until else "no end is stated")
    _line("at", f"{result.at:%Y-%m-%d %H:%M:%S} UTC")
    _line("files", ", ".join(result.used))
    click.echo(f"rules     {len(result.checks)}, of which {len(result.failed)} failed")
    output.findings([*(f for f in result.checks if f.ok), *result.failed])
    for note in result.notes:
        _line("note", note)
    if token:
        _line("token", token)


def _claims(claims: Claims) -> None:
    values = claims.values
    _line("by", f"{claims.vouched_by}; platform class {claims.platform_class}")
    if not claims.memory_encrypted:
        _line("", "its memory is not kept from the host")
    for number, (register, value) in enumerate(sorted(claims.measurement.items(), key=_natural)):
        _line("measured" if not number else "", f"{register:<12} {value}")
    _line("init data", claims.init_data or "bound by nothing")
    _line("answers", claims.report_data or "nothing")
    _line("debug", "yes: the host can look inside" if claims.debug else "no")
    if "vmpl" in values:
        _line(
            "layer", f"VMPL {claims.privilege_level}" + (" (a layer above it decides)" * bool(claims.privilege_level))
        )
    if claims.tcb_status:
        dated = f", of {str(values['tcb_date'])[:10]}" if values.get("tcb_date") else ""
        _line("TCB", claims.tcb_status + dated)
    for name, levels in sorted(values["tcb"].items()) if isinstance(values.get("tcb"), dict) else ():
        _line("TCB", f"{name}: " + ", ".join(f"{part} {svn}" for part, svn in dict(levels).items()))
    if values.get("advisory_ids"):
        _line("", "advisories: " + ", ".join(map(str, values["advisory_ids"])))


def _natural(entry: tuple[str, str]) -> list[Any]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", entry[0])]


def _title(tee: str) -> str:
    from casemate import tee as rooms

    found = _TITLE.match(rooms.room(tee).__doc__ or "") if tee in rooms.ROOMS else None
    return f"{tee}: {found[2]}" if found else tee or "not known"


def _line(label: str, text: str) -> None:
    click.echo(output.clean(f"{label:<9} {text}"))
