"""Compare claims with reference values: every register of one reference must hold; absence is a refusal.

So is the absence of all registers that the claims rest on (`Claims.rests_on`).
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from datetime import datetime

from casemate.errors import Finding
from casemate.schema.claims import Claims
from casemate.schema.reference import AtLeast, OneOf, Reference

_NONE = "read reference values of this TEE: they name other TEEs, or only container images"


def compare(claims: Claims, references: Sequence[Reference], now: datetime | None = None) -> tuple[Finding, ...]:
    """One finding, `reference.match`, when a reference holds; else one for each register of the nearest, by its name.

    A failed register is `reference.<register>`. `now` leaves out what has expired since it was read.
    """
    known = [r for r in references if r.registers and r.tee in ("", claims.tee)]
    fitting = [r for r in known if now is None or r.expires is None or now < r.expires]
    if not fitting:
        found = "only expired ones" if known else ", ".join(sorted({r.tee or r.format for r in references})) or "none"
        return (Finding("reference.tee", f"reference values for {claims.tee}", found, _NONE),)
    nearest = min(fitting, key=lambda r: len(_departures(claims, r)))
    departures = _departures(claims, nearest)
    if not departures:
        return (Finding("reference.match", "values of a reference", _label(nearest), ok=True),)
    return tuple(
        Finding(
            f"reference.{name}",
            f"{nearest.registers.get(name, 'a reference value for it')} ({_label(nearest)})",
            _shown(_found(claims, name)),
            "what was measured is not what the signer of the reference values vouches for",
        )
        for name in departures
    )


def artefact(digest: str, references: Sequence[Reference]) -> Finding:
    """Whether a signer vouches for the artefact (a container image) of this digest, `algorithm:hex`."""
    for reference in references:
        for name, allowed in reference.artefacts.items():
            if _any_same(digest, allowed):
                return Finding("reference.artefact", digest, f"{name} ({_label(reference)})", ok=True)
    names = sorted({name for r in references for name in r.artefacts})[:8]
    hint = "no signed statement names this digest: build it where its provenance is signed"
    return Finding("reference.artefact", digest, ", ".join(names) or "no artefact is named", hint)


def _departures(claims: Claims, reference: Reference) -> list[str]:
    departing = [n for n, wanted in reference.registers.items() if not _holds(wanted, _found(claims, n))]
    unknown = claims.rests_on[:1] if not set(claims.rests_on) & set(reference.registers) else ()
    return sorted([*departing, *unknown])


def _found(claims: Claims, register: str) -> str | int | None:
    found = claims.measurement.get(register, claims.values.get(register))
    return found if isinstance(found, str | int) and not isinstance(found, bool) else None


def _holds(wanted: OneOf | AtLeast, found: str | int | None) -> bool:
    if isinstance(wanted, AtLeast):
        return isinstance(found, int) and found >= wanted.value
    return found is not None and _any_same(str(found), wanted)


def _any_same(found: str, allowed: OneOf) -> bool:
    """Whether one of the values is this, each compared, so that time does not tell which one it was."""
    same = [hmac.compare_digest(found.lower().encode(), value.lower().encode()) for value in allowed.values]
    return True in same


def _shown(found: str | int | None) -> str:
    return "absent" if found is None else str(found)[:256]


def _label(reference: Reference) -> str:
    return f"{reference.name}, {'signed by ' + reference.signer if reference.signer else 'unsigned'}"
