"""Which Hygon root keys are trusted: Hygon's own, pinned here, and anchors that name CSV.

Hygon's certificates are not X.509, so the wall `casemate.tee.roots` cannot read them: an anchor's `certificate` is an
HRK of 832 bytes here. The pin is the key itself (64 bytes are public facts): no root has to come with the evidence.
"""

from __future__ import annotations

from dataclasses import dataclass

from casemate.crypto.sm2 import PublicKey
from casemate.schema.endorsements import PRODUCTION, Endorsements
from casemate.tee.csv import report as wire


@dataclass(frozen=True)
class Root:
    """A trusted root key. `identity` is the user id in its signatures, `key_id` what an HSK names as its signer."""

    key: PublicKey
    identity: bytes
    key_id: bytes
    platform_class: str
    name: str


# The HRK certificate's SHA-256 is 296efa97...75b10cd.
HYGON = Root(
    key=PublicKey(
        0xBE62E14D62A4F14CF3D702DB09563A75C80935E785CD1F502AF5F21D92C2F62D,
        0x3BAB123A57BB7015584F8B97164E95384A640C10B9BE884738744D68B41EB946,
    ),
    identity=b"HYGON-SSD-HRK",
    key_id=bytes.fromhex("3ae86a9701355cce333a589de21583d7"),
    platform_class=PRODUCTION,
    name="Hygon HRK",
)


def trusted(endorsements: Endorsements) -> tuple[Root, ...]:
    """Hygon's root, then the anchors for CSV; `Malformed` when an anchor is no HRK."""
    found = [HYGON]
    for anchor in endorsements.anchors_for("csv"):
        root = wire.authority(anchor.certificate)
        name = anchor.name or "an anchor without a name"
        found.append(Root(root.key, root.identity, root.key_id, anchor.platform_class, name))
    return tuple(found)
