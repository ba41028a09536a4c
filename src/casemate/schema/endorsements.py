"""Endorsements: what vendors and platform operators vouch for (RFC 9334 section 8.2), gathered before verification."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

DEVELOPMENT = "development"
PRODUCTION = "production"


class Anchor(msgspec.Struct, frozen=True, kw_only=True):
    """A root that the relying party trusts: a DER certificate and the class of platforms that it may vouch for.

    `tees` names the TEEs that it may vouch for, by default a bare TPM alone: the rooms of hardware TEEs have their
    vendor's root pinned and take an anchor only where it names them. Where a vendor has bare keys in the place of
    certificates (Arm CCA), `certificate` holds a DER SubjectPublicKeyInfo.
    """

    certificate: bytes
    platform_class: str = DEVELOPMENT
    name: str = ""
    tees: tuple[str, ...] = ("tpm",)


class Secrets:
    """Keys of the relying party's own, by name, for a TEE whose evidence only its asker can check (IBM SE).

    They stay with the verifier: they are shown nowhere, and being no paper they cannot be encoded by mistake.
    """

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, bytes] | None = None) -> None:
        self._values = dict(values or {})

    def get(self, name: str) -> bytes | None:
        """The key of that name, or None."""
        return self._values.get(name)

    def __repr__(self) -> str:
        return f"Secrets({', '.join(sorted(self._values))})"


_NONE = Secrets()


class Endorsements(msgspec.Struct, frozen=True, kw_only=True):
    """Anchors, plus whatever certificates and collateral documents the room's `endorse` collected (name → bytes).

    `secrets` are the verifier's own and never come from anybody else.
    """

    anchors: tuple[Anchor, ...] = ()
    certificates: tuple[bytes, ...] = ()
    collateral: dict[str, bytes] = {}
    secrets: Secrets = _NONE

    def anchors_for(self, tee: str) -> tuple[Anchor, ...]:
        """The anchors that may vouch for a TEE."""
        return tuple([anchor for anchor in self.anchors if tee in anchor.tees])
