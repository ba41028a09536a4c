"""CoCo's sealed secrets in a manifest's plain variables and files: checked, then kept like every other secret.

A value that begins with `sealed.` becomes a secret of the resource that it names, once the key that it names has signed
it; so it gets new versions too. Nothing unchecked is ever passed on to a container.
"""

from __future__ import annotations

from collections.abc import Callable

from casemate.errors import Malformed, Refused
from casemate.schema import sealed
from casemate.schema.manifest import Container, Secret
from casemate.wire import jcs
from casemate.wire.encoding import unb64u

MAX_KEY = 4096


def opened(container: Container, fetch: Callable[[str], bytes]) -> Container:
    """The container with its sealed values as secrets; `fetch(uri)` gives the keys. `Refused` where one is not good."""
    variables = [one for one in container.env if one.value.startswith(sealed.PREFIX)]
    files = [one for one in container.files if one.content.startswith(sealed.PREFIX)]
    if not variables and not files:
        return container
    import msgspec

    made = [Secret(resource=_checked(one.value, fetch), env=one.name) for one in variables]
    made += [Secret(resource=_checked(one.content, fetch), file=one.path, mode=one.mode) for one in files]
    return msgspec.structs.replace(
        container,
        env=tuple(one for one in container.env if one not in variables),
        files=tuple(one for one in container.files if one not in files),
        secrets=(*container.secrets, *made),
    )


def _checked(text: str, fetch: Callable[[str], bytes]) -> str:
    """The resource that a sealed secret names."""
    found = sealed.parse(text.strip())
    try:
        good = _verify(fetch(found.kid), found)
    except Malformed as error:
        raise _refusal(found, str(error)) from error
    if not good:
        raise _refusal(found, "another signature")
    return found.name


def _verify(key: bytes, found: sealed.Sealed) -> bool:
    """Whether the JWK `key` (P-256) signed it with ES256: r | s, 64 bytes (RFC 7518 section 3.4)."""
    from casemate.crypto import ecdsa

    document = jcs.parse_object(key, "signer's JWK", limit=MAX_KEY)
    if document.get("kty") != "EC" or document.get("crv") != "P-256":
        raise Malformed("signer's JWK: an EC key on P-256 is wanted")
    x, y = (unb64u(str(document.get(part, "")), f"signer's JWK.{part}", size=32) for part in ("x", "y"))
    return ecdsa.verify_p256(ecdsa.p256_key(x + y), found.signature, found.signed)


def _refusal(found: sealed.Sealed, seen: str) -> Refused:
    return Refused.because(
        "secret.sealed",
        expected=f"a sealed secret that the key at {found.kid} signed",
        found=seen,
        hint="seal it anew with that key, and keep the key's public JWK at that resource",
    )
