"""Which roots a hardware TEE's chain may end in: the vendor's, pinned here by digest, and anchors that name this TEE.

The vendor's certificates are not shipped. They come with the evidence or the endorsements, and count because their key
is pinned and has signed them (`chain.is_root`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from casemate.crypto import chain
from casemate.schema.endorsements import PRODUCTION, Endorsements


@dataclass(frozen=True)
class Root:
    """A trusted root: DER, the class of platforms it vouches for, and a name for people."""

    certificate: bytes
    platform_class: str
    name: str


def trusted(
    tee: str, pins: Mapping[str, str], candidates: Iterable[bytes], endorsements: Endorsements
) -> tuple[Root, ...]:
    """The roots that `pins` (name → hex) name among `candidates` and endorsed certificates (DER), and the anchors."""
    digests = {name: bytes.fromhex(pin) for name, pin in pins.items()}
    found: dict[bytes, Root] = {}
    for der in (*candidates, *endorsements.certificates):
        for name, digest in digests.items():
            if der not in found and chain.is_root(der, digest):
                found[der] = Root(der, PRODUCTION, name)
    for anchor in endorsements.anchors_for(tee):
        name = anchor.name or "an anchor without a name"
        found.setdefault(anchor.certificate, Root(anchor.certificate, anchor.platform_class, name))
    return tuple(found.values())
