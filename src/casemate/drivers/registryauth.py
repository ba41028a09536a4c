"""How a registry is convinced: credentials, the WWW-Authenticate challenge, bearer tokens.

Spec: RFC 7235, RFC 6750, the distribution project's token authentication. Credentials go to the registry itself and to
a token service of the same domain, never to whatever host a challenge names.
"""

from __future__ import annotations

import re
from urllib.parse import quote, urlsplit

import msgspec

from casemate.drivers import http
from casemate.errors import Malformed, Refused, Unavailable
from casemate.wire import jcs
from casemate.wire.encoding import b64, unb64

MAX_CHALLENGE = 4096
MAX_TOKEN = 32 << 10
_PARAMETER = re.compile(r'([A-Za-z_]+)="([^"]*)"')


class Credentials(msgspec.Struct, frozen=True):
    """A name and a password; never printed."""

    username: str
    password: str

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r})"

    @classmethod
    def parse(cls, data: bytes, host: str) -> Credentials:
        """From a containers-auth.json document (its entry for `host`) or from ``name:password``."""
        if data.lstrip().startswith(b"{"):
            auths = jcs.parse_object(data, "registry credentials", limit=64 << 10).get("auths")
            entry = auths.get(host) if isinstance(auths, dict) else None
            text = entry.get("auth") if isinstance(entry, dict) else None
            if not isinstance(text, str):
                raise Malformed(f"registry credentials: no entry for {host}")
            data = unb64(text, "registry credentials")
        try:
            username, colon, password = data.decode("utf-8").strip("\n").partition(":")
        except UnicodeDecodeError as error:
            raise Malformed("registry credentials: not UTF-8") from error
        if not colon or not username:
            raise Malformed("registry credentials: name:password is wanted")
        return cls(username, password)

    def header(self) -> str:
        """The value of a Basic Authorization header (RFC 7617)."""
        return "Basic " + b64(f"{self.username}:{self.password}".encode())


def answer(
    challenge: str, host: str, credentials: Credentials | None, *, scope: str, insecure: bool, pin: str | None = None
) -> str:
    """The Authorization header that satisfies a 401's `challenge` from `host`; `Refused` when there is none.

    `pin` is the registry's own; a token service at the registry's origin must prove it too.
    """
    kind, _, rest = challenge[:MAX_CHALLENGE].partition(" ")
    if kind.lower() == "basic" and credentials:
        return credentials.header()
    if kind.lower() != "bearer":
        raise refusal(host, "no credentials" if credentials is None else f"a demand for {kind[:32]!r}")
    given = dict(_PARAMETER.findall(rest))
    realm = given.get("realm", "")
    query = [f"{name}={quote(value, safe='')}" for name, value in (("service", given.get("service")),) if value]
    query.append(f"scope={quote(given.get('scope') or scope, safe='')}")
    url = realm + ("&" if "?" in realm else "?") + "&".join(query)
    headers = {"Accept": "application/json"}
    if credentials and _kin(realm, host):
        headers["Authorization"] = credentials.header()
    pin = pin_for(url, f"https://{host}", pin)
    response = http.request("GET", url, headers=headers, limit=MAX_TOKEN, insecure=insecure, pin=pin)
    if response.status != 200:
        raise refusal(host, f"status {response.status} from its token service")
    try:
        document = response.json()
    except Malformed as error:
        raise Unavailable(f"the token service of {host} answers no JSON") from error
    token = document.get("token") or document.get("access_token")
    if not isinstance(token, str) or not re.fullmatch(r"[A-Za-z0-9._~+/=-]+", token):
        raise Unavailable(f"the token service of {host} answers without a token")
    return f"Bearer {token}"


def pin_for(url: str, origin: str, pin: str | None) -> str | None:
    """`pin` where `url` leads to the pinned `origin` itself, else None: another server has another key."""
    if pin is None:
        return None
    try:
        here, there = urlsplit(url), urlsplit(origin)
        same = (here.hostname, here.port or 443) == (there.hostname, there.port or 443)
    except ValueError:
        return pin  # it can't be read: the request will say so
    return pin if same else None


def refusal(host: str, found: str) -> Refused:
    """The registry wants other credentials, or any."""
    return Refused.because(
        "registry.credentials",
        expected=f"credentials that {host} accepts",
        found=found,
        hint="name the broker's resource with the credentials in the manifest's registries",
    )


def _kin(url: str, host: str) -> bool:
    """Whether the host of `url` is `host` or shares its domain (auth.example.com and registry.example.com)."""
    try:
        other = (urlsplit(url).hostname or "").split(".")
    except ValueError:
        return False
    own = host.rsplit(":", 1)[0].strip("[]").split(".")
    named = len(own) > 2 and not own[-1].isdigit()
    return other == own or (named and other[-len(own) + 1 :] == own[1:])
