"""Submodules of an attestation result: `cpu0` is the machine, `gpu0`, `switch0`, ... what is passed through to it.

Names and classes are those of CoCo's attestation service, whose policies are looked up by class. A room that judged
several devices at once says so in its claims: `values["devices"]` is a list, and a device may state its `class`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from casemate.schema.claims import Claims

PRIMARY = "cpu"
DEVICE = "gpu"


@dataclass(frozen=True)
class Part:
    """One submodule: its name, the class of policies that judge it, whose claims it rests on, and its own values."""

    name: str
    kind: str
    claims: Claims
    values: dict[str, Any]


def parts(judged: Sequence[Claims]) -> tuple[Part, ...]:
    """The submodules of a CPU's claims and those of its devices, in that order (`composite.verify_all`)."""
    found: list[Part] = []
    counts: Counter[str] = Counter()
    for position, claims in enumerate(judged):
        for kind, values in _devices(claims, DEVICE if position else PRIMARY):
            found.append(Part(f"{kind}{counts[kind]}", kind, claims, values))
            counts[kind] += 1
    return tuple(found)


def _devices(claims: Claims, kind: str) -> list[tuple[str, dict[str, Any]]]:
    devices = claims.values.get("devices")
    if not isinstance(devices, list) or not devices:
        return [(kind, claims.values)]
    return [(str(device.get("class", kind)), device) for device in devices]
