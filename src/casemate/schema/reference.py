"""Reference values: which measurements a relying party accepts, and for how long (RFC 9334 section 8.3)."""

from __future__ import annotations

from datetime import datetime

import msgspec


class ReferenceValues(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One accepted guest image on one TEE. Every register in `values` must be equal; one that is absent is refused."""

    name: str
    tee: str
    values: dict[str, str]
    expires: datetime | None = None


class OneOf(msgspec.Struct, frozen=True, tag="one-of"):
    """A register that must show one of these values, lower-case hex."""

    values: tuple[str, ...]

    def __str__(self) -> str:
        return " or ".join(self.values)


class AtLeast(msgspec.Struct, frozen=True, tag="at-least"):
    """A security version that must be this or a later one."""

    value: int

    def __str__(self) -> str:
        return f"at least {self.value}"


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """Reference values as a signed document states them; made by `casemate.policy.references.read` alone.

    `registers` must all hold; their names are those of `Claims.measurement` (or, for numbers, of `Claims.values`).
    `tee` is empty where the format names none: the registers' names decide. `artefacts` are things that are no register
    (container images): name to allowed `algorithm:hex`. `environment` is what the format says of the values' origin,
    for people. `signer` is the key, DID or identity whose signature was checked, empty for an unsigned document.
    `source` is `sha256:<hex>` of the document.
    """

    name: str
    format: str
    tee: str = ""
    registers: dict[str, OneOf | AtLeast] = {}
    artefacts: dict[str, OneOf] = {}
    signer: str = ""
    issued: datetime | None = None
    expires: datetime | None = None
    scope: dict[str, str] = {}
    environment: dict[str, str] = {}
    source: str = ""

    def plain(self) -> ReferenceValues | None:
        """The form that a broker stores, None where a register allows more than one value or the scope is narrower."""
        values = {k: e.values[0] for k, e in self.registers.items() if isinstance(e, OneOf) and len(e.values) == 1}
        if not values or not self.tee or len(values) != len(self.registers) or set(self.scope) - {"tee"}:
            return None
        return ReferenceValues(name=self.name, tee=self.tee, values=values, expires=self.expires)
