"""Issuers whose tokens make admins: as the settings name them, and what their claims say (OpenID Connect Core 1.0)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

Role = Literal["owner", "operator", "auditor"]
RANK: dict[str, int] = {"auditor": 1, "operator": 2, "owner": 3}
WHOLE = "*"  # instead of a tenant's name: the broker itself
TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SUBJECT = re.compile(r"[\x21-\x7e]{1,255}")
_MAX_ROLES = 256


class Issuer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An issuer and what its tokens are worth here.

    `jwks` is a file or an https URL; empty: found by discovery at `issuer`. `ca` holds roots for https, else the
    system's count. The role is read at `role_claim` (dots lead into objects; lists are looked through) and translated
    by `roles`, without which it must be one of ours. The tenant is `tenant` (`*`: the whole broker) or what
    `tenant_claim` says; with neither, only subjects that were added with `casemate admin add` come in.
    """

    issuer: Annotated[str, Meta(pattern="^https://[^#?\\s]{1,400}$")]
    audience: Annotated[str, Meta(min_length=1, max_length=400)]
    jwks: str = ""
    ca: Path | None = None
    role_claim: str = "role"
    roles: dict[str, Role] = {}
    tenant: Annotated[str, Meta(pattern="^([*]|[A-Za-z0-9][A-Za-z0-9._-]{0,127})?$")] = ""
    tenant_claim: str = ""
    max_seconds: Annotated[int, Meta(ge=60, le=86400)] = 3600

    def who(self, claims: Mapping[str, Any]) -> str | None:
        """`issuer#subject`; None when the token names nobody."""
        subject = claims.get("sub")
        known = isinstance(subject, str) and _SUBJECT.fullmatch(subject)
        return f"{self.issuer}#{subject}" if known else None

    def role(self, claims: Mapping[str, Any]) -> Role | None:
        """The highest role that a token's claims give."""
        said = _at(claims, self.role_claim)
        values = said[:_MAX_ROLES] if isinstance(said, list) else [said]
        known: Mapping[str, Role] = self.roles or {"owner": "owner", "operator": "operator", "auditor": "auditor"}
        given = [known[value] for value in values if isinstance(value, str) and value in known]
        return max(given, key=RANK.__getitem__, default=None)

    def scope(self, claims: Mapping[str, Any]) -> str | None:
        """The tenant that a token's claims give, `*` for the whole broker (never by a claim), None for none."""
        if self.tenant or not self.tenant_claim:
            return self.tenant or None
        said = _at(claims, self.tenant_claim)
        return said if isinstance(said, str) and TENANT.fullmatch(said) else None


def _at(claims: Mapping[str, Any], name: str) -> Any:
    if name in claims:
        return claims[name]
    found: Any = claims
    for part in name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found
