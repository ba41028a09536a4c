"""Sealed secrets as CoCo's guests read them (SEALED_SECRET.md of its data hub): a signed reference to a resource.

    sealed.<header>.<payload>.<signature>      base64url without padding; ES256 over `<header>.<payload>` (RFC 7515)
    header   {"alg": "ES256", "kid": "kbs:///repo/type/tag"}          the resource that holds the signer's JWK
    payload  {"version": "0.1.0", "type": "vault", "name": "kbs:///…", "provider": "kbs", …}

Only this form is taken: no unsigned ones, no keys in files, no envelopes, no other provider.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from casemate.errors import Malformed
from casemate.wire import jcs
from casemate.wire.encoding import unb64u

PREFIX = "sealed."
MAX_SEALED = 16 << 10
_SEGMENT = r"[A-Za-z0-9_-][A-Za-z0-9_.-]*"
_RESOURCE = re.compile(rf"kbs:///{_SEGMENT}/{_SEGMENT}/{_SEGMENT}")
_MEMBERS = {"version", "type", "name", "provider", "provider_settings", "annotations"}


class Sealed(NamedTuple):
    """What a sealed secret says; nothing of it counts until `signature` over `signed` is good under the key `kid`."""

    kid: str
    name: str
    signed: bytes
    signature: bytes


def parse(text: str) -> Sealed:
    """A sealed secret's parts; the only error is `Malformed`."""
    parts = text.split(".") if len(text) <= MAX_SEALED else []
    if len(parts) != 4 or parts[0] != "sealed":
        raise Malformed(f"sealed secret: sealed.<header>.<payload>.<signature> in at most {MAX_SEALED} bytes is wanted")
    header, payload = (_object(part, name) for part, name in ((parts[1], "header"), (parts[2], "payload")))
    if set(header) - {"alg", "kid", "typ"} or header.get("alg") != "ES256":
        raise Malformed("sealed secret: its header is {alg: ES256, kid}")
    if set(payload) - _MEMBERS or payload.get("version") != "0.1.0":
        raise Malformed("sealed secret: of another version than 0.1.0, or with members that are not known")
    if payload.get("type") != "vault" or payload.get("provider") != "kbs":
        raise Malformed("sealed secret: type `vault` of provider `kbs` is wanted", hint="other services are not asked")
    signature = unb64u(parts[3], "sealed secret's signature", size=64)
    kid, name = (_resource(value) for value in (header.get("kid"), payload.get("name")))
    return Sealed(kid, name, f"{parts[1]}.{parts[2]}".encode(), signature)


def _object(part: str, name: str) -> dict[str, Any]:
    return jcs.parse_object(unb64u(part, f"sealed secret's {name}"), f"sealed secret's {name}", limit=MAX_SEALED)


def _resource(value: object) -> str:
    if not isinstance(value, str) or len(value) > 512 or not _RESOURCE.fullmatch(value):
        raise Malformed("sealed secret: `kid` and `name` are resources, kbs:///repo/type/tag")
    return value
