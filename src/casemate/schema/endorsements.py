"""Endorsements: what vendors and platform operators vouch for (RFC 9334 section 8.2), gathered before verification."""

from __future__ import annotations

import msgspec

DEVELOPMENT = "development"
PRODUCTION = "production"


class Anchor(msgspec.Struct, frozen=True, kw_only=True):
    """A root that the relying party trusts: a DER certificate and the class of platforms that it may vouch for.

    `tees` names the TEEs that it may vouch for, by default a bare TPM alone: the rooms of hardware TEEs have their
    vendor's root pinned and take an anchor only where it names them.
    """

    certificate: bytes
    platform_class: str = DEVELOPMENT
    name: str = ""
    tees: tuple[str, ...] = ("tpm",)


class Endorsements(msgspec.Struct, frozen=True, kw_only=True):
    """Anchors, plus whatever certificates and collateral documents the room's `endorse` collected (name → bytes)."""

    anchors: tuple[Anchor, ...] = ()
    certificates: tuple[bytes, ...] = ()
    collateral: dict[str, bytes] = {}

    def anchors_for(self, tee: str) -> tuple[Anchor, ...]:
        """The anchors that may vouch for a TEE."""
        return tuple(anchor for anchor in self.anchors if tee in anchor.tees)
