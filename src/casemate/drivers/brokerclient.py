"""Clients of a broker: an admin's, and anybody's. Always to a pinned key.

An error of the broker comes back as what it was there: `Refused` with the same findings, `Unusable` for what is missing
or malformed, `Unavailable` when the broker or its store does not answer.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from casemate.crypto import jws, signatures
from casemate.drivers import http, keyfiles
from casemate.errors import CasemateError, Finding, Malformed, Refused, Unavailable, Unusable
from casemate.schema.app import AppStatement
from casemate.schema.endorsements import Anchor
from casemate.schema.reference import ReferenceValues
from casemate.wire import jcs
from casemate.wire.encoding import b64, b64u, unb64u

TOKEN_SECONDS = 120
_TIMEOUT = 15.0
_NAMED = ("CASEMATE_BROKER", "CASEMATE_BROKER_PIN", "CASEMATE_ADMIN_KEY")
STATEMENT_TYPE = "casemate-app+jws"


class Pending(CasemateError):
    """The change waits for a second owner; it has no effect yet. `approval` is its id, `digest` what it is bound to."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.approval, self.digest = str(document.get("approval", "")), str(document.get("digest", ""))
        super().__init__(
            f"the change waits for a second owner as {self.approval}",
            hint=f"another owner runs: casemate approval approve {self.approval}",
        )


class Admin:
    """An admin of the broker at `url`, with the private key (Ed25519 or EC P-256, PEM) in the file `key_path`."""

    def __init__(self, url: str, pin: str, key_path: Path) -> None:
        self.url, self.pin = url.rstrip("/"), pin
        try:
            key = serialization.load_pem_private_key(keyfiles.read(key_path), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise Unusable(f"{key_path} is not a private key in PEM", hint="casemate init made one") from error
        if not isinstance(key, ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey):
            raise Unusable(f"{key_path} is neither an Ed25519 nor an EC key")
        self._key = key

    @classmethod
    def local(cls, home: Path) -> Self:
        """The admin of the local trust domain, as `casemate up` left it in context.json.

        `$CASEMATE_BROKER`, `$CASEMATE_BROKER_PIN` and `$CASEMATE_ADMIN_KEY` name another broker or admin.
        """
        url, pin, key = (os.environ.get(name, "") for name in _NAMED)
        if url and pin and key:
            return cls(url, pin, Path(key))
        if url or pin:
            raise Unusable("a broker has an address, a pin and an admin's key", hint="set " + ", ".join(_NAMED))
        try:
            context = jcs.parse_object((home / "context.json").read_bytes(), "context.json", limit=1 << 20)
            return cls(context["broker"]["url"], context["broker"]["pin"], Path(key or context["admin_key"]))
        except FileNotFoundError as error:
            raise Unusable(f"no local trust domain in {home}", hint="casemate up") from error
        except (KeyError, TypeError) as error:
            raise Malformed(
                f"{home / 'context.json'}: {error} is missing", hint="casemate up writes it anew"
            ) from error

    def found(self, tenant: str, name: str, platforms: tuple[str, ...]) -> dict[str, Any]:
        """Found an app: `app_id` and `founding`."""
        return self._json("POST", "/apps", {"tenant": tenant, "name": name, "platforms": list(platforms)})

    def apps(self) -> list[AppStatement]:
        """Every app with its releases."""
        return msgspec.convert(self._json("GET", "/apps")["apps"], list[AppStatement])

    def allow(self, app_id: str, platforms: tuple[str, ...]) -> AppStatement:
        """Set the platform classes that an app allows."""
        body = {"platforms": list(platforms)}
        return msgspec.convert(self._json("POST", f"/apps/{_part(app_id)}/platforms", body), AppStatement)

    def resources(self, app_id: str) -> list[dict[str, Any]]:
        """An app's resources and their newest versions."""
        return list(self._json("GET", f"/apps/{_part(app_id)}/resources")["resources"])

    def add_release(self, app_id: str, manifest: bytes) -> str:
        """Make a manifest (JSON) an active release; returns its digest."""
        answer = self._call("POST", f"/casemate/v0/admin/apps/{_part(app_id)}/releases", manifest)
        return str(answer["manifest_digest"])

    def revoke_release(self, app_id: str, digest: str) -> None:
        """Revoke a release."""
        self._json("POST", f"/apps/{_part(app_id)}/releases/{_part(digest)}/revoke")

    def put_resource(self, app_id: str, resource: str, value: bytes) -> int:
        """Store the next version of `kbs:///repo/type/tag` for an app; returns the version."""
        answer = self._call("POST", f"{resource_path(resource)}?app={_part(app_id)}", value)
        return int(answer["version"])

    def delete_resource(self, resource: str) -> None:
        """Delete every version of a resource."""
        self._call("DELETE", resource_path(resource))

    def add_anchor(self, anchor: Anchor) -> str:
        """Trust a root of platforms; returns its fingerprint."""
        body: dict[str, Any] = {
            "certificate": b64(anchor.certificate),
            "platform_class": anchor.platform_class,
            "name": anchor.name,
        }
        body["tees"] = list(anchor.tees)
        return str(self._json("POST", "/anchors", body)["fingerprint"])

    def add_reference(self, reference: ReferenceValues) -> None:
        """Accept a guest image."""
        self._json("POST", "/reference-values", msgspec.to_builtins(reference))

    def references(self) -> list[ReferenceValues]:
        """Every accepted guest image."""
        return msgspec.convert(self._json("GET", "/reference-values")["reference_values"], list[ReferenceValues])

    def decisions(self, limit: int = 100, app_id: str | None = None) -> list[dict[str, Any]]:
        """The newest decisions, newest first."""
        chosen = f"&app={_part(app_id)}" if app_id else ""
        return list(self._json("GET", f"/decisions?limit={limit}{chosen}")["decisions"])

    def rotate_log_key(self) -> str:
        """Give the log a new key; returns its vkey."""
        return str(self._json("POST", "/log/rotate", {})["vkey"])

    def receipts(self, since: str, until: str, *, after: int = -1, **chosen: str | None) -> list[dict[str, Any]]:
        """Receipts of a period, in the log's order from above number `after`; `chosen`: `app`, `tenant`."""
        asked = {"since": since, "until": until, "after": str(after), **{k: v for k, v in chosen.items() if v}}
        query = "&".join(f"{name}={quote(value)}" for name, value in asked.items())
        return list(self._json("GET", f"/receipts?{query}")["receipts"])

    def call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """Any of the admin's requests; `path` stands below /casemate/v0/admin, `body` is JSON."""
        return self._json(method, path, body)

    def token(self, seconds: int = TOKEN_SECONDS, audience: str = "KBS") -> str:
        """A JWT that proves the admin for a while (EdDSA, RFC 8037, or ES256); the broker believes at most 300 s.

        One for the audience `casemate-console` signs in at the console alone, for which 3600 s are believed.
        """
        now, public = int(time.time()), self._key.public_key()
        claims = {"sub": "admin", "role": "admin", "aud": [audience], "iat": now, "exp": now + seconds}
        header = {"alg": jws.of(public).algorithm, "typ": "JWT", "kid": jws.thumbprint(public)}
        signed = f"{_packed(header)}.{_packed(claims)}"
        return f"{signed}.{b64u(signatures.sign_jose(self._key, signed.encode()))}"

    def _json(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        return self._call(method, "/casemate/v0/admin" + path, data)

    def _call(self, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self.token()}", "Content-Type": "application/octet-stream"}
        return _answer(self.url, self.pin, method, path, headers=headers, body=body)


def info(url: str, pin: str, *, timeout: float = _TIMEOUT) -> dict[str, Any]:
    """What the broker says of itself: version, key_pin, signing_key, anchors."""
    return _answer(url.rstrip("/"), pin, "GET", "/casemate/v0/info", timeout=timeout)


def app_statement(url: str, pin: str, app_id: str) -> AppStatement:
    """The broker's statement of an app, with its signature checked against the pinned broker's signing key."""
    key = info(url, pin).get("signing_key")
    answer = _answer(url.rstrip("/"), pin, "GET", f"/casemate/v0/apps/{_part(app_id)}")
    payload = open_statement(str(answer.get("statement", "")), key if isinstance(key, dict) else {})
    try:
        statement = msgspec.json.decode(payload, type=AppStatement)
    except msgspec.DecodeError as error:
        raise Malformed(f"app statement: {error}") from error
    if statement.app_id != app_id or statement.founding.app_id != app_id:
        raise Refused.because(
            "app.id", expected=app_id, found=statement.founding.app_id, hint="the statement tells of another app"
        )
    return statement


def open_statement(compact: str, key: dict[str, Any]) -> bytes:
    """The payload of a compact JWS (RFC 7515) signed with ES256 by the JWK `key`."""
    header, _, rest = compact.partition(".")
    payload, _, signature = rest.partition(".")
    try:
        said = jcs.parse_object(unb64u(header, "app statement header"), "app statement header")
        if said.get("alg") != "ES256" or said.get("typ") != STATEMENT_TYPE:
            raise Malformed("app statement: not a statement signed with ES256")
        x, y = (int.from_bytes(unb64u(str(key.get(part, "")), "signing key", size=32), "big") for part in ("x", "y"))
        raw = unb64u(signature, "app statement signature", size=64)
        public = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
        der = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
        public.verify(der, f"{header}.{payload}".encode(), ec.ECDSA(hashes.SHA256()))
    except (ValueError, InvalidSignature) as error:
        raise Refused.because(
            "app.statement",
            expected="a statement signed by the broker",
            found="another signature",
            hint="somebody changed the statement; do not use it",
        ) from error
    return unb64u(payload, "app statement")


def _answer(
    url: str,
    pin: str,
    method: str,
    path: str,
    *,
    headers: dict[str, str] | None = None,
    body: bytes | None = None,
    timeout: float = _TIMEOUT,
) -> dict[str, Any]:
    try:
        response = http.request(method, url + path, headers=headers, body=body, pin=pin, timeout=timeout)
    except Unavailable as error:
        raise Unavailable(f"the broker does not answer: {error}", hint="casemate status; casemate up") from error
    if response.status == 200:
        return response.json(values=jcs.MAX_BYTES) if response.body else {}  # lists of ten thousand decisions
    if response.status == 202:
        raise Pending(response.json())
    try:
        document = response.json() if response.body else {}
    except Malformed:  # the server in front of the broker answers in plain text
        if response.status in (429, 503):
            raise Unavailable("the broker is busy or not ready", hint="try again in a moment") from None
        document = {}
    raise _failure(response.status, document)


def _failure(status: int, document: dict[str, Any]) -> CasemateError:
    detail, hint = str(document.get("detail", f"HTTP {status}")), str(document.get("hint", ""))
    reasons = document.get("reasons")
    findings = [
        Finding(
            rule=str(reason.get("rule", "")),
            expected=str(reason.get("expected", "")),
            found=str(reason.get("found", "")),
            hint=str(reason.get("hint", "")),
        )
        for reason in (reasons if isinstance(reasons, list) else [])
        if isinstance(reason, dict)
    ]
    if findings:
        return Refused(findings, detail)
    kind = Unavailable if status in (429, 503) else Unusable
    return kind(f"the broker says: {detail}", hint=hint)


def resource_path(resource: str) -> str:
    """The path of `kbs:///repo/type/tag` at a broker."""
    if not resource.startswith("kbs:///") or resource.count("/") != 5:
        raise Unusable(f"resource {resource[:100]!r} is not kbs:///repo/type/tag")
    return "/kbs/v0/resource/" + quote(resource.removeprefix("kbs:///"))


def _part(text: str) -> str:
    return quote(text, safe=":")


def _packed(value: dict[str, Any]) -> str:
    return b64u(json.dumps(value, separators=(",", ":")).encode())
