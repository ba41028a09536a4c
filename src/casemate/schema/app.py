"""App, release and their public statement: a name gives nothing, an app is a record that a tenant owns.

The app's id is SHA-256 over the RFC 8785 JSON of its founding record.
"""

from __future__ import annotations

import msgspec

from casemate.crypto import pins
from casemate.wire import jcs


class Founding(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The founding record: tenant, name, RFC 3339 time and 16 random bytes as hex, so that no two apps are alike."""

    tenant: str
    name: str
    founded: str
    salt: str

    @property
    def app_id(self) -> str:
        """`sha256:<hex>` of the canonical record."""
        return pins.digest(jcs.canonical(msgspec.to_builtins(self)))


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """One approved manifest of an app. `state` is `active` or `revoked`."""

    manifest_digest: str
    state: str
    registered: str


class AppStatement(msgspec.Struct, frozen=True, kw_only=True):
    """What the broker says of an app to anybody, signed as a JWS: founding record and the releases with their states.

    `platforms` are the platform classes that the app allows; closed by default to `production` only.
    """

    app_id: str
    founding: Founding
    releases: tuple[Release, ...]
    platforms: tuple[str, ...] = ("production",)
